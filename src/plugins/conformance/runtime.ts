/**
 * The conformance suite of the runtime contract: what every runtime plugin must do, whatever it runs. Cases for whichever test runner:
 *
 *     for (const { name, run } of runtimeCases(plugin, world)) test(name, run)
 */
import { deepEqual, equal, match, ok } from 'node:assert/strict'
import { CedanaError, type ErrorCode } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import type { Snapshot, Target } from '../contract/job.js'
import type { OptionSchemas, ParsedOptions } from '../contract/options.js'
import type { DumpContext, RestoreContext, RunContext, Runtime, RuntimeManifest, VerbSupport } from '../contract/runtime.js'
import { manifestProblems } from './manifest.js'

/** What the suite needs of the outside to judge a plugin: live targets of its kind on this machine. */
export interface RuntimeWorld {
  readonly host: Host
  /** A live target of more than one process, and the options that name it. */
  start(): Promise<LiveTarget>
  /** Options that name a target that is not there, and the code of the refusal. */
  readonly absent: { readonly options: ParsedOptions; readonly code: ErrorCode }
  /** Options of `run` for a program that ends by itself. */
  readonly run: ParsedOptions
}
export interface LiveTarget {
  readonly target: Target
  readonly options: ParsedOptions
  /** Options of `query` that show it; absent: none are needed. */
  readonly query?: ParsedOptions
  stop(): Promise<void>
}

export interface ConformanceCase {
  readonly name: string
  run(): Promise<void>
}

type Verbs = Partial<Runtime<OptionSchemas, VerbSupport>>
type Verb = keyof Verbs

/** So that a plan that changes what it was given is found out. */
function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    Object.values(value).forEach(deepFreeze)
  }
  return value
}

const code = async (work: () => Promise<unknown>): Promise<string> => {
  try {
    await work()
  } catch (thrown) {
    const error = CedanaError.from(thrown)
    return error.code === 'BUG' ? `not a CedanaError: ${String(thrown)}` : error.code
  }
  return 'no error'
}

const RUN: RunContext = {
  caller: { uid: 12345, gid: 12346, groups: [12347], pid: 1 },
  environment: { A: 'b' },
  workingDirectory: '/tmp',
  jid: 'contract',
  directory: '/run/cedana/jobs/contract',
  stdio: 'log',
  windowSize: undefined,
}
const RESTORE: Omit<RestoreContext, 'snapshot' | 'identity' | 'attachment'> = {
  mountNamespace: '1',
  stdio: { then: 'none', now: 'none' },
  log: undefined,
  caller: { uid: 0, gid: 0, groups: [0], pid: 1 },
  jid: 'contract',
  directory: '/run/cedana/jobs/contract',
  images: '/tmp',
  work: '/tmp/work',
  switches: { tcpEstablished: false, extUnixSockets: false, fileLocks: false, shellJob: false },
}

/** `makeWorld`: a fresh one for each case. */
export function runtimeCases(manifest: RuntimeManifest, makeWorld: () => RuntimeWorld): readonly ConformanceCase[] {
  const cases: ConformanceCase[] = []
  /** Only when all of these verbs are claimed. */
  const add = (name: string, verbs: readonly Verb[], run: (has: Verbs, world: RuntimeWorld) => Promise<void>): void => {
    if (verbs.every((verb) => manifest.verbs[verb] !== undefined))
      cases.push({ name, run: async () => run(await manifest.load(), makeWorld()) })
  }
  const addLive = (
    name: string,
    verbs: readonly Verb[],
    run: (has: Verbs, world: RuntimeWorld, live: LiveTarget) => Promise<void>,
  ): void => {
    add(name, verbs, async (has, world) => {
      const live = await world.start()
      try {
        await run(has, world, live)
      } finally {
        await live.stop()
      }
    })
  }
  const parse = (verb: string, options: ParsedOptions): ParsedOptions => manifest.options[verb]?.parse(options) ?? {}
  const states = async ({ host }: RuntimeWorld, target: Target): Promise<string[]> =>
    (await host.inspect(target)).processes.map(({ state }) => state)

  cases.push({ name: 'has a manifest that is whole', run: async () => deepEqual(manifestProblems(manifest), []) })

  add('has every verb it claims, and no other', [], async (has) => deepEqual(Object.keys(has).sort(), Object.keys(manifest.verbs).sort()))

  add('plans a run for the caller, not for itself', ['run'], async ({ run }, { host, run: options }) => {
    const context = deepFreeze({ ...RUN })
    const plan = await run!(host, context, parse('run', options))
    ok(plan.argv.length > 0, 'a program')
    deepEqual({ uid: plan.user.uid, gid: plan.user.gid, groups: plan.user.groups }, { uid: 12345, gid: 12346, groups: [12347] })
    deepEqual(await run!(host, context, parse('run', options)), plan, 'the same request gives the same plan')
  })

  addLive('finds a live target', ['resolve'], async ({ resolve }, { host }, live) =>
    deepEqual(await resolve!(host, parse('resolve', live.options)), live.target),
  )

  add('says of a missing target that it is missing', ['resolve'], async ({ resolve }, { host, absent }) =>
    equal(await code(() => resolve!(host, parse('resolve', absent.options))), absent.code),
  )

  addLive(
    'makes a plan for a dump that is pure: the same look gives the same plan, and is not touched',
    ['dump'],
    async ({ dump }, world, live) => {
      const context = await dumpContext(world, live, parse('resolve', live.options))
      const plan = await dump!(world.host, context, parse('dump', {}))
      deepEqual(await dump!(world.host, context, parse('dump', {})), plan)
      for (const { name } of plan.attachments) match(name, /^[^/]+$/, 'attachments have no directories')
      ok(!(await states(world, live.target)).includes('T'), 'planning leaves the target alone')
    },
  )

  addLive('makes a plan for a restore that is pure', ['dump', 'restore'], async ({ dump, restore }, world, live) => {
    const context = await dumpContext(world, live, parse('resolve', live.options))
    const { attachments } = await dump!(world.host, context, parse('dump', {}))
    const { snapshot, identity } = context
    const attachment = async (name: string): Promise<Uint8Array | undefined> => attachments.find((one) => one.name === name)?.content
    const wanted = { ...RESTORE, snapshot, identity, attachment }
    const plan = await restore!(world.host, wanted, parse('restore', {}))
    deepEqual(await restore!(world.host, wanted, parse('restore', {})), plan)
  })

  addLive('freezes the whole tree, and lets it go on', ['freeze', 'unfreeze'], async ({ freeze, unfreeze }, world, live) => {
    const identity = parse('resolve', live.options)
    await freeze!(world.host, live.target, identity)
    const frozen = await states(world, live.target)
    ok(frozen.length > 1, 'a tree of more than one process')
    deepEqual(
      frozen.filter((state) => state !== 'T' && state !== 'D'),
      [],
      'all of it stands still',
    )
    await freeze!(world.host, live.target, identity)
    await unfreeze!(world.host, live.target, identity)
    ok(!(await states(world, live.target)).includes('T'), 'it goes on')
  })

  addLive('waits no longer for a target that is there', ['upcoming'], async ({ upcoming }, { host }, live) =>
    deepEqual(await upcoming!(host, parse('resolve', live.options)), live.target),
  )

  add('ends a wait at once when it is cancelled', ['upcoming'], async ({ upcoming }, { host, absent }) => {
    const cancel = new AbortController()
    const waiting = code(() => upcoming!({ ...host, signal: cancel.signal }, parse('resolve', absent.options)))
    cancel.abort()
    equal(await waiting, 'CANCELLED')
  })

  addLive('lists a live target', ['query'], async ({ query }, { host }, live) => {
    const { columns, rows } = await query!(host, parse('query', live.query ?? {}))
    ok(rows.length > 0, 'a row')
    for (const { cells } of rows)
      deepEqual(
        Object.keys(cells).filter((name) => !columns.includes(name)),
        [],
        'cells of columns',
      )
  })

  return cases
}

async function dumpContext({ host }: RuntimeWorld, live: LiveTarget, identity: ParsedOptions): Promise<DumpContext> {
  const snapshot: Snapshot = deepFreeze(await host.inspect(live.target))
  return deepFreeze({ snapshot, mountNamespace: '1', userNamespace: '2', cgroupNamespace: '3', stdio: 'none' as const, identity })
}
