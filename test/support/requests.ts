/** Requests as the command line makes them without flags. */
import { connect } from '../../src/daemon/api/client.js'
import type { DumpRequest, Engine, RestoreRequest } from '../../src/daemon/api/engine.js'
import type { World } from './world.js'

const SWITCHES = { tcpEstablished: undefined, fileLocks: undefined, shellJob: undefined, linkRemap: undefined, external: [], criuOpts: '' }

export const dumpRequest = (jid: string, changes: Partial<DumpRequest> = {}): DumpRequest => ({
  ...SWITCHES,
  jid,
  type: '',
  target: {},
  options: {},
  dir: '',
  name: '',
  compression: '',
  level: undefined,
  streams: 0,
  keepLast: undefined,
  leaveRunning: undefined,
  skipInFlight: undefined,
  dryRun: false,
  timeoutMs: 0,
  withState: false,
  ...changes,
})

export const restoreRequest = (jid: string, changes: Partial<RestoreRequest> = {}): RestoreRequest => ({
  ...SWITCHES,
  jid,
  type: '',
  path: '',
  options: {},
  stdio: undefined,
  waitAttach: false,
  log: '',
  pidFile: '',
  tcpClose: undefined,
  leaveStopped: undefined,
  gpus: [],
  dryRun: false,
  timeoutMs: 0,
  withState: false,
  windowSize: undefined,
  ...changes,
})

/** The daemon of a world, asked without a command in between. */
export const engineOf = (world: World): Engine => connect({ protocol: 'unix', address: world.socket, waitForReady: true, tokenFile: '' })
