/** config.json of a bundle (OCI runtime specification), as far as cedana looks into it; what it does not know stays as it is. */
import { z } from 'zod'
import { CedanaError } from '../contract/errors.js'
import type { Host } from '../contract/host.js'
import { absoluteIn, isBind } from '../contract/kit.js'
import { type Attachment, SPEC_DUMP } from '../contract/plan.js'

const Namespace = z.looseObject({ type: z.string(), path: z.string().optional() })
const Mount = z.looseObject({
  destination: z.string(),
  type: z.string().optional(),
  source: z.string().optional(),
  options: z.array(z.string()).nullish(),
})
const Spec = z.looseObject({
  ociVersion: z.string(),
  process: z.looseObject({ terminal: z.boolean().optional(), args: z.array(z.string()).nullish() }),
  root: z.looseObject({ path: z.string() }),
  mounts: z
    .array(Mount)
    .nullish()
    .transform((mounts) => mounts ?? []),
  linux: z
    .looseObject({
      namespaces: z.array(Namespace).nullish(),
      maskedPaths: z.array(z.string()).nullish(),
      cgroupsPath: z.string().nullish(),
    })
    .nullish(),
})
export type Spec = z.output<typeof Spec>

/** By the names of the specification: network, pid, ipc, uts, mount, user, cgroup. An empty path: one of its own. */
export interface Namespace {
  readonly type: string
  readonly path: string
}

const CONFIG = 'config.json'

/** Throws BAD_OPTIONS in words that name the bundle. */
export async function readSpec(host: Host, bundle: string): Promise<Spec> {
  const text = await host.readText(`${bundle}/${CONFIG}`).catch((cause: unknown) => {
    throw failed(bundle, CedanaError.from(cause).message, cause)
  })
  if (text === undefined) throw failed(bundle, `there is no ${CONFIG} in it`)
  return parseSpec(text, (why, cause) => failed(bundle, `${CONFIG} ${why}`, cause))
}

/**
 * Of a bundle that a checkpoint is restored with: one that has a root file system only is what the checkpoint says, which it may have come to this
 * machine with.
 */
export async function specForRestore(
  host: Host,
  bundle: string,
  saved: Uint8Array | undefined,
): Promise<{ readonly spec: Spec; readonly isSaved: boolean }> {
  if (!saved || (await host.exists(`${bundle}/${CONFIG}`))) return { spec: await readSpec(host, bundle), isSaved: false }
  const spec = parseSpec(
    Buffer.from(saved).toString(),
    (why, cause) =>
      new CedanaError('IMAGE_CORRUPT', `${SPEC_DUMP} of the checkpoint is damaged: it ${why}`, {
        cause,
        hint: `use another checkpoint, or put a ${CONFIG} into the bundle`,
      }),
  )
  return { spec: { ...spec, root: { ...spec.root, path: ROOTFS } }, isSaved: true }
}
const ROOTFS = 'rootfs'

/** `refusal`: why it is none, to be said after its name. */
function parseSpec(text: string, refusal: (why: string, cause: unknown) => CedanaError): Spec {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (cause) {
    throw refusal('is not JSON', cause)
  }
  const spec = Spec.safeParse(parsed)
  if (spec.success) return spec.data
  const [issue] = spec.error.issues
  throw refusal(`has a wrong ${issue?.path.join('.') || 'content'} (${issue?.message ?? 'bad'})`, spec.error)
}

const failed = (bundle: string, why: string, cause?: unknown): CedanaError =>
  new CedanaError('BAD_OPTIONS', `failed to load spec of bundle ${bundle}: ${why}`, {
    cause,
    hint: `name a directory with config.json and a root file system by --bundle (see: runc spec)`,
  })

export interface Terminal {
  readonly terminal: boolean
  /** Undefined: as the bundle says. */
  readonly consoleSize?: { readonly height: number; readonly width: number } | undefined
}

/** The same container from a bundle that lies elsewhere, with or without a terminal. */
function movedSpec(spec: Spec, bundle: string, { terminal, consoleSize }: Terminal): Spec {
  return {
    ...spec,
    process: { ...spec.process, terminal, ...(consoleSize && { consoleSize }) },
    root: { ...spec.root, path: absoluteIn(bundle, spec.root.path) },
    mounts: spec.mounts.map((mount) =>
      isBind(mount) && mount.source !== undefined ? { ...mount, source: absoluteIn(bundle, mount.source) } : mount,
    ),
  }
}

export interface UsedBundle {
  readonly path: string
  readonly files: readonly Attachment[]
}

/** The bundle as it is, or, where it must differ or has no configuration, one of the job's own: the user's is never written to. */
export function bundleFor(
  spec: Spec,
  bundle: string,
  wanted: Terminal & { readonly directory: string; readonly isChanged?: boolean },
): UsedBundle {
  const { terminal, consoleSize, directory, isChanged = false } = wanted
  if ((spec.process.terminal ?? false) === terminal && !consoleSize && !isChanged) return { path: bundle, files: [] }
  const content = Buffer.from(JSON.stringify(movedSpec(spec, bundle, wanted)))
  return { path: `${directory}/${OWN_BUNDLE}`, files: [{ name: `${OWN_BUNDLE}/${CONFIG}`, content }] }
}
const OWN_BUNDLE = 'bundle'
