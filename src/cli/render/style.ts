/** Colours, or none: decided once per stream. */
const CODES = { bold: 1, red: 31, green: 32, yellow: 33, magenta: 35, cyan: 36, grey: 90, blue: 94 } as const
export type Colour = keyof typeof CODES

export type Style = (colour: Colour | undefined, text: string) => string

export const plain: Style = (_colour, text) => text
export const coloured: Style = (colour, text) => (colour === undefined || text === '' ? text : `\x1b[${CODES[colour]}m${text}\x1b[0m`)

export const COLOUR_MODES = ['auto', 'always', 'never'] as const
export type ColourMode = (typeof COLOUR_MODES)[number]

/** --color, then NO_COLOR, then FORCE_COLOR and CLICOLOR_FORCE, then whether the stream is a terminal that can. */
export function styleFor(stream: { readonly isTTY?: boolean }, mode: ColourMode, env: Readonly<Record<string, string | undefined>>): Style {
  if (mode !== 'auto') return mode === 'always' ? coloured : plain
  if (env.NO_COLOR) return plain
  const forced = [env.FORCE_COLOR, env.CLICOLOR_FORCE].find((value) => value !== undefined && value !== '')
  if (forced !== undefined) return forced === '0' || forced === 'false' ? plain : coloured
  return stream.isTTY === true && env.TERM !== 'dumb' ? coloured : plain
}
