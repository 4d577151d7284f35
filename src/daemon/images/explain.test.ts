import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { explainCriuLog } from './explain.js'

const LOGS = new URL('../../../test/fixtures/criu-logs/', import.meta.url)

/** Logs of CRIU 4.2.1, each provoked, by the cause they must be put down to. */
const EXPECTED: Readonly<Record<string, string | undefined>> = {
  'dump-bpf-map': 'descriptor-kind',
  'dump-cork-udp': 'corked-socket',
  'dump-detached-mount': 'mount-outside',
  'dump-dev-fuse': 'device',
  'dump-dev-kvm': 'device',
  'dump-dev-tun': 'tun',
  'dump-file-locks': 'file-locks',
  'dump-file-locks-posix': 'file-locks',
  'dump-ghost-too-large': 'ghost-file-too-large',
  'dump-io-uring': 'io-uring',
  'dump-kernel-thread': 'not-seizable',
  'dump-landlock': 'descriptor-kind',
  'dump-link-remap': 'link-remap',
  'dump-mntns': 'mount-outside',
  'dump-no-iptables': 'network-lock',
  'dump-no-space': 'no-space',
  'dump-no-such-pid': 'not-seizable',
  'dump-other-user': 'other-user',
  'dump-perf-event': 'descriptor-kind',
  'dump-pid1': 'not-seizable',
  'dump-pidfd-outside': 'pidfd-outside',
  'dump-pidns-parent': 'nested-pid-namespace',
  'dump-secretmem': 'mount-outside',
  'dump-session-outside': 'session-outside',
  'dump-sysv-shm': 'sysv-ipc',
  'dump-tcp-established': 'tcp-established',
  'dump-tcp-in-flight': 'tcp-in-flight',
  'dump-traced': 'not-seizable',
  'dump-tty-leader': 'terminal-outside',
  'dump-unix-external-dgram': 'external-unix-socket',
  'dump-unix-external-stream-flag': 'external-unix-socket',
  'dump-unix-external-pair': 'external-unix-socket',
  'dump-userfaultfd': 'descriptor-kind',
  'dump-vsock': 'socket-kind',
  'dump-zombie': 'not-seizable',
  'restore-address-gone': 'address-gone',
  'restore-build-id': 'file-changed',
  'restore-container-pages-missing': 'image-corrupt',
  'restore-core-magic': 'image-corrupt',
  'restore-core-missing': 'image-corrupt',
  'restore-core-truncated': 'image-corrupt',
  'restore-cwd-missing': 'file-missing',
  'restore-file-ext-nokey': 'no-such-key',
  'restore-file-missing': 'file-missing',
  'restore-file-mode': 'file-mode',
  'restore-file-size': 'file-size',
  'restore-files-missing': 'restored-process-died',
  'restore-inventory-missing': 'image-corrupt',
  'restore-mount-symlink': 'mount-source',
  'restore-no-memory': 'no-memory',
  'restore-pages-missing': 'image-corrupt',
  'restore-pid-in-use': 'pid-in-use',
  'restore-port-in-use': 'port-in-use',
  'restore-tcp-no-flag': 'tcp-established',
  'restore-tid-in-use': 'pid-in-use',
  'restore-tty-ext-nokey': 'terminal-missing',
  'restore-tty-none': 'terminal-missing',
  'restore-unix-path-in-use': 'unix-path-in-use',
}

const log = (name: string): string => readFileSync(new URL(`${name}.log`, LOGS), 'utf8')

describe('a log of CRIU', () => {
  it.each(Object.entries(EXPECTED))('%s is put down to %s', (name, id) => {
    const { lines, cause } = explainCriuLog(log(name))
    expect(cause?.id).toBe(id)
    expect(cause?.message).not.toMatch(/\$\d|\?/)
    expect(lines.length).toBeGreaterThan(0)
    expect(lines.join()).not.toContain('RLIMIT_NOFILE')
  })

  it('has its fixture expected', () => {
    expect(
      readdirSync(LOGS)
        .map((name) => name.replace('.log', ''))
        .sort(),
    ).toEqual(Object.keys(EXPECTED).sort())
  })

  it('names what it is about', () => {
    expect(explainCriuLog(log('restore-file-size')).cause?.message).toMatch(/^file \/srv\/app\/rf has 7 bytes now and had 3 at the dump$/)
    expect(explainCriuLog(log('dump-mntns')).cause?.message).toBe(
      'descriptor 0 (/dev/null) is on a mount that the process does not see itself',
    )
  })

  it('shows the first causal lines bare', () => {
    expect(explainCriuLog(log('restore-file-missing')).lines[0]).toBe(
      "Error (criu/files-reg.c:2353): Can't open file srv/app/rf on restore: No such file or directory",
    )
    expect(
      explainCriuLog('(00.123456)     17: Error (criu/new.c:9): never seen\n(00.2) Error (criu/cr-dump.c:1975): Dumping FAILED.\n'),
    ).toEqual({
      lines: ['Error (criu/new.c:9): never seen'],
      cause: undefined,
    })
  })

  it('of other versions is known too', () => {
    const cause = (line: string) => explainCriuLog(`(00.1) Error (criu/x.c:1): ${line}`).cause?.id
    expect(cause("sockets: Can't get 1:16 opt: Operation not supported")).toBe('criu-too-old')
    expect(cause("Can't dump file 19 of that type [600] (anon anon_inode:[io_uring])")).toBe('io-uring')
    expect(cause('Pid 17 do not match expected 18')).toBe('pid-in-use')
    expect(cause('Missing required plugin: cuda_plugin')).toBe('missing-plugin')
  })

  it('without a word explains nothing', () => {
    expect(explainCriuLog('')).toEqual({ lines: [], cause: undefined })
    expect(explainCriuLog("Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n")).toEqual({
      lines: [],
      cause: undefined,
    })
  })
})
