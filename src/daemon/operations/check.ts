/** `check`: does this machine have what checkpointing needs? Sections of components; an error means that something will not work. */
import { release } from 'node:os'
import { CedanaError } from '../../plugins/contract/errors.js'
import { criuCheck, criuSelfTest, PRIVATE_CRIU } from '../host/probe.js'
import type { Environment } from './environment.js'
import { hostFor } from './host.js'
import { examine } from './needs.js'
import type { Call, CheckSection } from './verbs.js'

type Component = CheckSection['components'][number]

const component = (name: string, data: string, warnings: readonly string[] = [], errors: readonly string[] = []): Component => ({
  name,
  data,
  warnings,
  errors,
})

/** Feature bits say less than one round trip. */
async function roundTrip(path: string): Promise<Component> {
  const { outcome, reason, ms } = await criuSelfTest(path)
  if (outcome === 'passed') return component('dump and restore', `passed in ${Math.round(ms)} ms`)
  return component('dump and restore', outcome, outcome === 'failed' ? [] : [reason], outcome === 'failed' ? [reason] : [])
}

async function criuSection(env: Environment, isFull: boolean): Promise<CheckSection> {
  try {
    const binary = await env.criu()
    const isPrivate = binary.path === PRIVATE_CRIU || env.config.criu.binary_path !== ''
    const { ok, warnings, errors } = await criuCheck(binary)
    return {
      name: 'criu',
      components: [
        component('version', String(binary.version), isPrivate ? [] : [`found in PATH: ${binary.path}`]),
        component('features', ok ? 'available' : 'unavailable', warnings, ok ? [] : errors.length > 0 ? errors : ['criu check failed']),
        ...(isFull ? [await roundTrip(binary.path)] : []),
      ],
    }
  } catch (thrown) {
    const error = CedanaError.from(thrown)
    return {
      name: 'criu',
      components: [component('version', 'missing', [], [error.hint === undefined ? error.message : `${error.message}: ${error.hint}`])],
    }
  }
}

async function hostSection(env: Environment): Promise<CheckSection> {
  const { capabilities } = await env.facts()
  const lacks = (name: string, consequence: string): string[] => (capabilities.has(name) ? [] : [`${name} is missing: ${consequence}`])
  const needed = [...lacks('CAP_SYS_ADMIN', 'CRIU cannot restore'), ...lacks('CAP_SYS_PTRACE', 'CRIU cannot look into processes')]
  const wanted = [
    ...lacks('CAP_SYS_RESOURCE', 'processes of users other than root cannot be dumped'),
    ...lacks('CAP_NET_ADMIN', 'established TCP connections cannot be dumped'),
  ]
  return {
    name: 'host',
    components: [
      component('kernel', release()),
      component('capabilities', needed.length > 0 ? 'insufficient' : wanted.length > 0 ? 'partial' : 'sufficient', wanted, needed),
    ],
  }
}

async function runtimeSections(env: Environment, call: Call): Promise<CheckSection[]> {
  const usable = env.runtimes.runtimes.map(async ({ description, problem: trouble, version, origin }) => {
    const components = await Promise.all(
      description.requires.map(async (need) => {
        const { name, found, problem } = await examine(env, call.signal, need)
        // A runtime that comes with cedana and is not on this machine is no fault of the machine.
        const isUnused = origin === 'built-in' && 'binary' in need && found === 'missing'
        const problems = problem === '' ? [] : [problem]
        return component(name, found, isUnused ? problems : [], isUnused ? [] : problems)
      }),
    )
    return { name: description.name, components: [component('version', version, [], trouble === '' ? [] : [trouble]), ...components] }
  })
  const rest = env.runtimes.leftOut.map(({ name, version, reason }) => ({
    name,
    components: [component('version', version, [], [reason])],
  }))
  return [...(await Promise.all(usable)), ...rest]
}

/** A machine without GPUs lacks nothing. */
async function gpuSection(env: Environment, call: Call): Promise<CheckSection> {
  return { name: 'cuda', components: await (await env.gpu()).check(hostFor(env, call.signal)) }
}

export async function check(env: Environment, call: Call, request: { readonly full: boolean }): Promise<readonly CheckSection[]> {
  const sections = [await criuSection(env, request.full), await hostSection(env)]
  return request.full ? [...sections, ...(await runtimeSections(env, call)), await gpuSection(env, call)] : sections
}
