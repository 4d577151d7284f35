/** Runs the code of a plugin's package: what throws, or is not what a plugin is, is none. */
import { pathToFileURL } from 'node:url'
import { manifestProblems } from '../../plugins/conformance/manifest.js'
import { CedanaError } from '../../plugins/contract/errors.js'
import * as contract from '../../plugins/contract/index.js'
import type { RuntimeManifest, Verb } from '../../plugins/contract/runtime.js'
import { describeRuntime, parseDescription, refuseKind, type RuntimeDescription } from '../../plugins/description.js'
import type { AnyRuntime } from '../../plugins/registry.js'
import { DOOR } from './stage.js'

export interface LoadedCode {
  readonly manifest: RuntimeManifest
  readonly description: RuntimeDescription
  readonly verbs: AnyRuntime
}

const failed = (message: string, cause?: unknown, hint?: string): CedanaError =>
  new CedanaError('PLUGIN_FAILED', message, { cause, ...(hint === undefined ? {} : { hint }) })

async function importManifest(entry: string): Promise<RuntimeManifest> {
  Object.defineProperty(globalThis, DOOR, { value: contract, configurable: true })
  let door: Readonly<Record<string, unknown>>
  try {
    door = (await import(pathToFileURL(entry).href)) as Readonly<Record<string, unknown>>
  } catch (cause) {
    throw failed(`its code fails as it is loaded: ${cause instanceof Error ? cause.message : String(cause)}`, cause)
  }
  const { plugin } = door
  if (typeof plugin !== 'object' || plugin === null || !('load' in plugin) || typeof plugin.load !== 'function')
    throw failed(`${entry} does not export a plugin`, undefined, 'export const plugin = defineRuntime({ … })')
  refuseKind((plugin as Partial<RuntimeManifest>).kind)
  return plugin as RuntimeManifest
}

async function loadVerbs(manifest: RuntimeManifest): Promise<AnyRuntime> {
  const verbs: unknown = await manifest.load()
  if (typeof verbs !== 'object' || verbs === null) throw failed('its load() gives no verbs')
  const missing = (Object.keys(manifest.verbs) as Verb[]).filter((verb) => typeof (verbs as AnyRuntime)[verb] !== 'function')
  if (missing.length > 0) throw failed(`it claims ${missing.join(', ')} and does not have ${missing.length > 1 ? 'them' : 'it'}`)
  return verbs
}

/** Throws PLUGIN_FAILED unless its manifest is one, and it has what it claims. */
export async function loadCode(entry: string): Promise<LoadedCode> {
  const manifest = await importManifest(entry)
  const problems = manifestProblems(manifest)
  if (problems.length > 0) throw failed(problems.join('; '))
  const description = parseDescription(describeRuntime(manifest), entry)
  return { manifest, description, verbs: await loadVerbs(manifest) }
}
