/** Runs the code of a plugin's package, for the first time: what does not end, throws, or is not what its description says is no plugin. */
import { pathToFileURL } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import { manifestProblems } from '../../plugins/conformance/manifest.js'
import { CedanaError } from '../../plugins/contract/errors.js'
import * as contract from '../../plugins/contract/index.js'
import type { RuntimeManifest, Verb } from '../../plugins/contract/runtime.js'
import { describeRuntime, parseDescription } from '../../plugins/description.js'
import { DESCRIPTION_FILE, type PluginPackage } from '../../plugins/packages.js'
import type { AnyRuntime, LoadedRuntime } from '../../plugins/registry.js'
import { DOOR } from './stage.js'

const failed = (message: string, cause?: unknown, hint?: string): CedanaError =>
  new CedanaError('PLUGIN_FAILED', message, { cause, ...(hint === undefined ? {} : { hint }) })

async function within<T>(limitMs: number, work: () => Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(failed(`did not load within ${limitMs / 1000} s`)), limitMs)
  })
  try {
    return await Promise.race([work(), late])
  } finally {
    clearTimeout(timer)
  }
}

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
  return plugin as RuntimeManifest
}

async function loadVerbs(manifest: RuntimeManifest): Promise<AnyRuntime> {
  const verbs: unknown = await manifest.load()
  if (typeof verbs !== 'object' || verbs === null) throw failed('its load() gives no verbs')
  const missing = (Object.keys(manifest.verbs) as Verb[]).filter((verb) => typeof (verbs as AnyRuntime)[verb] !== 'function')
  if (missing.length > 0) throw failed(`it claims ${missing.join(', ')} and does not have ${missing.length > 1 ? 'them' : 'it'}`)
  return verbs
}

/** What the code of a package says of itself: that its manifest is one, and that it has what it claims. Throws PLUGIN_FAILED. */
export function manifestOf(entry: string, limitMs: number): Promise<RuntimeManifest> {
  return within(limitMs, async () => {
    const manifest = await importManifest(entry)
    const problems = manifestProblems(manifest)
    if (problems.length > 0) throw failed(problems.join('; '))
    parseDescription(describeRuntime(manifest), entry)
    await loadVerbs(manifest)
    return manifest
  })
}

/** A plugin that has been looked at before: it must still be what was seen. */
export function loadPlugin({ entry, description }: Pick<PluginPackage, 'entry' | 'description'>, limitMs: number): Promise<LoadedRuntime> {
  return within(limitMs, async () => {
    const manifest = await importManifest(entry)
    if (!isDeepStrictEqual(describeRuntime(manifest), description))
      throw failed(`its code is not what ${DESCRIPTION_FILE} says`, undefined, 'make that again: cedana plugin manifest DIR')
    return { manifest, verbs: await loadVerbs(manifest) }
  })
}
