/** Versions: of this contract, and how a range of versions is read wherever a plugin states one. */

/**
 * The version of the contract, by semantic versioning. Patch: words and defects. Minor: something to use is there in addition (a verb, an optional member of
 * a plan, a method of Host); what was written for an older minor version goes on working. Major: what was written before must be changed.
 */
export const CONTRACT_VERSION = '1.1.0'

type Version = readonly [major: number, minor: number, patch: number]

const COMPARATOR = /^(\^|~|>=|<=|>|<|=)?v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:[-+.].*)?$/

const compare = (a: Version, b: Version): number => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]

/** The first version that is none of `^1.2`, `~1.2`, `1.2` any more. */
function upperEnd(operator: string, [major, minor, patch]: Version, given: number): Version {
  if (operator === '^')
    return major > 0 || given === 1 ? [major + 1, 0, 0] : minor > 0 || given === 2 ? [0, minor + 1, 0] : [0, 0, patch + 1]
  if (given === 1) return [major + 1, 0, 0]
  return operator === '~' || given === 2 ? [major, minor + 1, 0] : [major, minor, patch + 1]
}

function meets(version: Version, comparator: string): boolean {
  const [, operator = '', ...parts] = COMPARATOR.exec(comparator) ?? []
  const numbers = parts.filter(Boolean).map(Number)
  if (numbers.length === 0) return false
  const [major = 0, minor = 0, patch = 0] = numbers
  const order = compare(version, [major, minor, patch])
  switch (operator) {
    case '>=':
      return order >= 0
    case '>':
      return order > 0
    case '<=':
      return order <= 0
    case '<':
      return order < 0
    default:
      return order >= 0 && compare(version, upperEnd(operator, [major, minor, patch], numbers.length)) < 0
  }
}

/** Whether a version is in a range such as `>=1.1`, `^1.0`, `>=3.16 <5`, `1.2 || ^2`. A range that is none holds nothing. */
export function satisfies(version: string, range: string): boolean {
  const [, major, minor = '0', patch = '0'] = /^v?(\d+)(?:\.(\d+))?(?:\.(\d+))?/.exec(version) ?? []
  if (major === undefined) return false
  const numbers: Version = [Number(major), Number(minor), Number(patch)]
  return range.split('||').some((part) => {
    const comparators = part.trim().split(/\s+/).filter(Boolean)
    return comparators.length > 0 && comparators.every((one) => meets(numbers, one))
  })
}
