/** JSON and YAML for programs: snake_case keys, one document per command. */

/** Only names written by this project (camelCase) are changed; names of others (environment, columns) stay as they are. */
const snake = (key: string): string =>
  /^[a-z][A-Za-z0-9]*$/.test(key) ? key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) : key

export function snakeCase(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(snakeCase)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, item]) => item !== undefined)
      .map(([key, item]) => [snake(key), snakeCase(item)]),
  )
}

export const toJson = (value: unknown): string => `${JSON.stringify(snakeCase(value), null, 2)}\n`

export async function toYaml(value: unknown): Promise<string> {
  const { stringify } = await import('yaml')
  return stringify(snakeCase(value), { lineWidth: 0 })
}
