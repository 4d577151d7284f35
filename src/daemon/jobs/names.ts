/** Job ids: which are allowed, random ones that people can say and remember, and which of them is meant. */
import { randomInt } from 'node:crypto'
import { CedanaError } from '../../plugins/contract/errors.js'
import type { JobId } from '../../plugins/contract/job.js'

const VALID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/

/** Throws BAD_OPTIONS: ids become parts of file names. */
export function checkJobId(text: string): JobId {
  if (VALID.test(text)) return text as JobId
  const shown = text.length > 40 ? `${text.slice(0, 40)}…` : text
  throw new CedanaError('BAD_OPTIONS', `invalid job id ${JSON.stringify(shown)}`, {
    hint: 'use 1 to 128 letters, digits, dots, dashes or underscores, beginning with a letter or digit',
  })
}

const ADJECTIVES = `able agile airy alert amber ample amused ancient apt arctic ardent artful astute autumn aware balmy bold brainy brave breezy bright brisk
  bubbly busy calm candid careful caring cheery chief civil classic clean clear clever cosmic cozy crafty crisp curious daring dazzling deep deft devoted
  direct dreamy eager early earnest easy elated elegant epic exact expert fair famous fancy fast fearless festive fine firm fleet fluent fond frank free
  fresh friendly frosty gallant generous gentle genuine giddy gifted glad gleaming golden good grand grateful great handy happy hardy hearty honest hopeful
  humble ideal jolly jovial joyful keen kind lasting lavish level light lively logical loyal lucid lucky lunar magic mellow merry mighty mild modest
  musing neat nimble noble novel open patient peaceful peppy placid playful pleasant plucky polite prime proud prudent quick quiet quirky radiant rapid
  ready regal relaxed robust rosy rugged savvy serene sharp shining silent sincere sleek smart smooth snappy solar solid speedy spirited stable steady
  stellar sterling still stoic sturdy subtle sunny superb sure swift tactful tender thorough tidy timely tranquil trusty upbeat valiant vast vibrant vivid
  warm wise witty wondrous worthy young zany zesty`
const SURNAMES = `abel adleman allen ampere anning avogadro babbage bardeen bassi becquerel bell berners bernoulli bhabha blackwell bohr boole borg born bose
  boyle brahe burnell cannon cantor carson cauchy cerf chandra chomsky church codd conway cori coulomb cray curie dahl dalton darwin davy dijkstra dirac
  doppler easley eckert edison ehrlich einstein elion engelbart erdos euclid euler faraday fermat fermi feynman fleming floyd fourier franklin galileo
  galois gauss gibbs godel goeppert golgi goodall gosling haber halley hamilton hamming hawking hedy heisenberg hertz hilbert hoare hodgkin holberton
  hopper hubble huffman huygens jang jemison jennings joliot joule kalam kalman karp kay keller kelvin kepler kernighan khorana kilby kirch knuth kolmogorov
  lagrange lamarr lamport landau laplace leakey leavitt leibniz lichterman linnaeus liskov lorentz lovelace lumiere mach maxwell mayer mccarthy mcclintock
  meitner mendel mendeleev minsky mirzakhani moore morse moser napier nash neumann newton nightingale nobel noether northcutt noyce ohm oppenheimer pascal
  pasteur pauli payne pearl perlman pike planck poincare poitras ptolemy raman ramanujan rhodes riemann ritchie robinson rontgen rubin rutherford sagan
  saha sammet sanger schrodinger shannon shaw shockley sinoussi snyder solomon spence stallman steiner swanson swartz tarjan tesla tharp thompson torvalds
  tu turing varahamihira vaughan volta wescoff wien wiles wilkes williams wilson wirth wozniak wright wu yalow yonath zhukovsky`
const adjectives = ADJECTIVES.split(/\s+/)
const surnames = SURNAMES.split(/\s+/)
const pick = (words: readonly string[]): string => words[randomInt(words.length)] ?? ''

/** `<adjective>_<surname><digit>`, as `brave_hopper7`. Not checked to be free. */
export const randomJobId = (): JobId => `${pick(adjectives)}_${pick(surnames)}${randomInt(10)}` as JobId

function isRandom(jid: string): boolean {
  const [, adjective = '', surname = ''] = /^([a-z]+)_([a-z]+)\d$/.exec(jid) ?? []
  return adjectives.includes(adjective) && surnames.includes(surname)
}

const SHORTEST = 4

/**
 * The id that is meant: it itself, or the beginning of a random one. A name that somebody chose is never meant by less: who kills `web` does not mean
 * `web-2`. Undefined: none. Throws BAD_OPTIONS: it fits several.
 */
export function meantBy(name: string, jids: readonly string[]): string | undefined {
  if (jids.includes(name)) return name
  const fitting = name.length < SHORTEST ? [] : jids.filter((jid) => jid.startsWith(name) && isRandom(jid))
  if (fitting.length > 1) throw new CedanaError('BAD_OPTIONS', `${name} fits several jobs: ${fitting.join(', ')}`)
  return fitting[0]
}
