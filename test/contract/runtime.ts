/** The conformance suite of the runtime contract: what every runtime plugin must do, whatever it runs. */
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { CedanaError, type ErrorCode } from '../../src/plugins/contract/errors.js'
import type { Host } from '../../src/plugins/contract/host.js'
import type { Snapshot, Target } from '../../src/plugins/contract/job.js'
import type { OptionMeta, OptionSchemas, ParsedOptions } from '../../src/plugins/contract/options.js'
import type { Runtime, RuntimeManifest, VerbSupport } from '../../src/plugins/contract/runtime.js'

/** What the suite needs of the outside to judge a plugin: live targets of its kind on this machine. */
export interface RuntimeWorld {
  readonly host: Host
  /** A live target, and the options that name it. */
  start(): Promise<{ readonly target: Target; readonly options: ParsedOptions; stop(): Promise<void> }>
  /** Options that name a target that is not there, and the code of the refusal. */
  readonly absent: { readonly options: ParsedOptions; readonly code: ErrorCode }
  /** Options of `run` for a program that ends by itself. */
  readonly run: ParsedOptions
  /** The state letters of all processes of a tree. */
  states(target: Target): Promise<readonly string[]>
}

type Verbs = Partial<Runtime<OptionSchemas, VerbSupport>>

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
    return thrown instanceof CedanaError ? thrown.code : `not a CedanaError: ${String(thrown)}`
  }
  return 'no error'
}

export function runtimeContract(manifest: RuntimeManifest, makeWorld: () => RuntimeWorld): void {
  const load = (): Promise<Verbs> => manifest.load()
  const claims = (verb: keyof Verbs): boolean => manifest.verbs[verb] !== undefined
  const parse = (verb: string, options: ParsedOptions): ParsedOptions => manifest.options[verb]?.parse(options) ?? {}

  describe(`runtime ${manifest.name}`, () => {
    test('has a manifest that is frozen data', () => {
      expect(Object.isFrozen(manifest)).toBe(true)
      expect(manifest.name).toMatch(/^[a-z][a-z0-9-]*$/)
      expect(manifest.summary).not.toBe('')
      for (const verb of ['run', 'resolve', 'dump', 'restore'] as const)
        if (claims(verb)) expect(manifest.options[verb], `options of ${verb}`).toBeDefined()
    })

    test('has every verb it claims, and no other', async () => {
      expect(Object.keys(await load()).sort()).toEqual(Object.keys(manifest.verbs).sort())
    })

    test('describes every option, in words a JSON schema can carry', () => {
      for (const schema of Object.values(manifest.options)) {
        if (!schema) continue
        expect(z.toJSONSchema(schema, { io: 'input' })).toMatchObject({ type: 'object' })
        for (const [name, option] of Object.entries(schema.shape)) {
          const meta = option.meta() as OptionMeta | undefined
          expect(meta?.description, name).toBeTruthy()
        }
      }
    })

    test('refuses options it does not know', () => {
      for (const [verb, schema] of Object.entries(manifest.options)) {
        const result = schema?.safeParse({ noSuchOption: 1 })
        expect(result?.success, verb).toBe(false)
      }
    })

    test.runIf(claims('run'))('plans a run for the caller, not for itself', async () => {
      const { run } = await load()
      const world = makeWorld()
      const context = deepFreeze({
        caller: { uid: 12345, gid: 12346, groups: [12347], pid: 1 },
        environment: { A: 'b' },
        workingDirectory: '/tmp',
        jid: 'contract',
        directory: '/run/cedana/jobs/contract',
        stdio: 'log' as const,
        windowSize: undefined,
      })
      const plan = await run!(world.host, context, parse('run', world.run))
      expect(plan.argv.length).toBeGreaterThan(0)
      expect(plan.user).toMatchObject({ uid: 12345, gid: 12346, groups: [12347] })
      expect(await run!(world.host, context, parse('run', world.run))).toEqual(plan)
    })

    test.runIf(claims('resolve'))('finds a live target, and says of a missing one that it is missing', async () => {
      const { resolve } = await load()
      const world = makeWorld()
      const live = await world.start()
      try {
        expect(await resolve!(world.host, parse('resolve', live.options))).toEqual(live.target)
      } finally {
        await live.stop()
      }
      expect(await code(() => resolve!(world.host, parse('resolve', world.absent.options)))).toBe(world.absent.code)
    })

    test.runIf(claims('dump') && claims('restore'))(
      'makes plans that are pure: the same look gives the same plan, and is not touched',
      async () => {
        const { dump, restore } = await load()
        const world = makeWorld()
        const live = await world.start()
        try {
          const snapshot: Snapshot = deepFreeze(await world.host.inspect(live.target))
          const identity = parse('resolve', live.options)
          const dumpContext = deepFreeze({ snapshot, mountNamespace: '1', stdio: 'none' as const, identity })
          const dumpOptions = parse('dump', {})
          const plan = await dump!(world.host, dumpContext, dumpOptions)
          expect(await dump!(world.host, dumpContext, dumpOptions)).toEqual(plan)
          const restoreContext = {
            snapshot,
            mountNamespace: '1',
            stdio: { then: 'none', now: 'none' } as const,
            log: undefined,
            caller: { uid: 0, gid: 0, groups: [0], pid: 1 },
            jid: 'contract',
            directory: '/run/cedana/jobs/contract',
            images: '/tmp',
            work: '/tmp/work',
            identity,
            switches: { tcpEstablished: false, extUnixSockets: false, fileLocks: false, shellJob: false },
            attachment: async (name: string) => plan.attachments.find((one) => one.name === name)?.content,
          }
          const restoreOptions = parse('restore', {})
          const restorePlan = await restore!(world.host, restoreContext, restoreOptions)
          expect(await restore!(world.host, restoreContext, restoreOptions)).toEqual(restorePlan)
          expect(await world.states(live.target), 'planning left the target alone').not.toContain('T')
        } finally {
          await live.stop()
        }
      },
    )

    test.runIf(claims('freeze') && claims('unfreeze'))('freezes the whole tree, and lets it go on', async () => {
      const { freeze, unfreeze } = await load()
      const world = makeWorld()
      const live = await world.start()
      try {
        await freeze!(world.host, live.target, parse('resolve', live.options))
        const frozen = await world.states(live.target)
        expect(frozen.length).toBeGreaterThan(1)
        expect(frozen.every((state) => state === 'T' || state === 'D')).toBe(true)
        await freeze!(world.host, live.target, parse('resolve', live.options))
        await unfreeze!(world.host, live.target, parse('resolve', live.options))
        expect(await world.states(live.target)).not.toContain('T')
      } finally {
        await live.stop()
      }
    })

    test.runIf(claims('upcoming'))('ends a wait at once when it is cancelled', async () => {
      const { upcoming } = await load()
      const world = makeWorld()
      const cancel = new AbortController()
      const waiting = code(() => upcoming!({ ...world.host, signal: cancel.signal }, parse('resolve', world.absent.options)))
      cancel.abort()
      expect(await waiting).toBe('CANCELLED')
    })
  })
}
