/** `plugins`: what there is, what can be used, and why the rest cannot. */
import { dirname } from 'node:path'
import { CedanaError } from '../../plugins/contract/errors.js'
import { formatVersion } from '../host/criu.js'
import { PRIVATE_CRIU } from '../host/probe.js'
import type { Environment } from './environment.js'
import { hostFor } from './host.js'
import { examine } from './needs.js'
import type { Call, ListPluginsRequest, PluginView, Verbs } from './verbs.js'

/** A program, and no plugin of ours, but to be installed like one. */
async function criu(env: Environment): Promise<PluginView> {
  const view = {
    kind: 'program',
    name: 'criu',
    summary: 'CRIU, for all runtimes',
    verbs: {},
    features: {},
    needs: [],
    sizeBytes: 0,
  } as const
  try {
    const { path, version } = await env.criu()
    const isOurs = path === PRIVATE_CRIU || path.startsWith(`${env.config.plugins.bin_dir}/`)
    return { ...view, origin: isOurs ? 'installed' : 'local', version: formatVersion(version), directory: dirname(path), problem: '' }
  } catch (thrown) {
    return { ...view, origin: 'available', version: '', directory: '', problem: CedanaError.from(thrown).message }
  }
}

/** A machine without GPUs lacks nothing. */
async function cuda(env: Environment, call: Call, { needs }: ListPluginsRequest): Promise<PluginView> {
  const rows = needs ? await (await env.gpu()).check(hostFor(env, call.signal)) : []
  const [problem = ''] = rows.flatMap(({ errors }) => errors)
  const found = rows
    .filter(({ name }) => name === 'driver')
    .map(({ data }) => ({ name: 'CUDA driver', wanted: '>=570', found: data, problem }))
  const place = { origin: 'built-in', version: '', directory: '', sizeBytes: 0 } as const
  return {
    kind: 'gpu',
    name: 'cuda',
    summary: 'NVIDIA GPUs, for all runtimes',
    ...place,
    verbs: {},
    features: {},
    needs: found,
    problem: '',
  }
}

export async function listPlugins(env: Environment, call: Call, request: ListPluginsRequest): Promise<readonly PluginView[]> {
  const usable = env.runtimes.runtimes.map(async ({ description, problem, origin, version, directory, sizeBytes }): Promise<PluginView> => {
    const { kind, name, summary, verbs, features, requires } = description
    const needs = request.needs ? await Promise.all(requires.map((need) => examine(env, call.signal, need))) : []
    return { kind, name, summary, verbs, features, needs, origin, version, directory, sizeBytes, problem }
  })
  const rest = env.runtimes.leftOut.map(({ name, origin, version, directory, sizeBytes, reason }): PluginView => {
    return {
      kind: 'runtime',
      name,
      summary: '',
      verbs: {},
      features: {},
      needs: [],
      origin,
      version,
      directory,
      sizeBytes,
      problem: reason,
    }
  })
  return [...(await Promise.all(usable)), ...rest, await criu(env), await cuda(env, call, request)].sort((a, b) =>
    a.name.localeCompare(b.name),
  )
}

function mayReload({ caller }: Call): void {
  if (caller.uid !== 0) throw new CedanaError('PERMISSION_DENIED', 'only root may have the daemon read anything again')
}

export async function reloadPlugins(env: Environment, call: Call): Promise<readonly PluginView[]> {
  mayReload(call)
  await env.reloadPlugins()
  return listPlugins(env, call, { needs: false })
}

export async function reload(env: Environment, call: Call): ReturnType<Verbs['reload']> {
  mayReload(call)
  const { changed, atNextStart } = await env.reload()
  return { changed, atNextStart, plugins: await listPlugins(env, call, { needs: false }) }
}
