/** `process_state.json`: the look at the tree that was taken before the dump. */
import { z } from 'zod'
import { CedanaError } from '../../plugins/contract/errors.js'
import { FILE_TYPES, SOCKET_FAMILIES, type Pid, type Snapshot } from '../../plugins/contract/job.js'

export const STATE = 'process_state.json'

const Pid = z.int().transform((pid) => pid as Pid)
const Ids = z.tuple([z.int(), z.int(), z.int(), z.int()])
const Namespaces = z.looseObject({
  cgroup: z.string(),
  ipc: z.string(),
  mnt: z.string(),
  net: z.string(),
  pid: z.string(),
  user: z.string(),
  uts: z.string(),
})
const OpenFile = z.looseObject({
  fd: z.int(),
  path: z.string(),
  type: z.enum(FILE_TYPES),
  flags: z.int(),
  position: z.number(),
  mountId: z.int(),
  inode: z.string(),
  device: z.number(),
  deviceId: z.number(),
  isTty: z.boolean(),
  isDeleted: z.boolean(),
  isLocked: z.boolean(),
  isSemaphore: z.boolean(),
})
const ProcessFacts = z.looseObject({
  pid: Pid,
  innerPid: z.int().default(0),
  parentPid: Pid,
  processGroup: z.int(),
  session: z.int(),
  startTicks: z.string(),
  state: z.string(),
  name: z.string(),
  args: z.array(z.string()),
  executable: z.string(),
  workingDirectory: z.string(),
  rootDirectory: z.string(),
  uids: Ids,
  gids: Ids,
  groups: z.array(z.int()),
  threads: z.array(z.int()),
  terminal: z.int(),
  seccomp: z.int(),
  residentBytes: z.number(),
  dumpBytes: z.number(),
  sharedBytes: z.number(),
  tracer: z.int(),
  namespaces: Namespaces,
  cgroups: z.array(z.string()),
  files: z.array(OpenFile),
})
const Socket = z.looseObject({
  pid: Pid,
  fd: z.int(),
  inode: z.string(),
  family: z.enum(SOCKET_FAMILIES),
  kind: z.enum(['stream', 'datagram', 'seqpacket', 'raw', 'other']),
  state: z.string(),
  local: z.string(),
  remote: z.string(),
  peerPid: z.int().default(0),
})
const Mount = z.looseObject({
  id: z.int(),
  parentId: z.int(),
  device: z.string(),
  root: z.string(),
  path: z.string(),
  options: z.string(),
  filesystem: z.string(),
  source: z.string(),
})
const State = z.looseObject({
  target: z.looseObject({ pid: Pid, startTicks: z.string(), bootId: z.string() }),
  processes: z.array(ProcessFacts).min(1),
  sockets: z.array(Socket),
  mounts: z.array(Mount),
})

export const encodeState = (snapshot: Snapshot): Uint8Array => Buffer.from(`${JSON.stringify(snapshot, null, 2)}\n`)

/** Whether these bytes were written by `encodeState`. */
export function isState(bytes: Uint8Array): boolean {
  try {
    decodeState(bytes)
    return true
  } catch {
    return false
  }
}

export function decodeState(bytes: Uint8Array): Snapshot {
  try {
    return State.parse(JSON.parse(Buffer.from(bytes).toString('utf8')))
  } catch (cause) {
    throw new CedanaError('IMAGE_CORRUPT', `${STATE} is damaged`, { cause, detail: { files: [STATE] } })
  }
}
