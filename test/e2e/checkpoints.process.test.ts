import { createHash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  openSync,
  readSync,
  writeSync,
  closeSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { isAlive } from '../support/processes.js'
import { until } from '../support/wait.js'
import { useWorld } from '../support/world.js'

const world = useWorld()

interface View {
  readonly id: string
  readonly jid: string
  readonly path: string
  readonly size: number
}
const checkpointsOf = async (jid: string): Promise<View[]> =>
  JSON.parse((await world.ok(['checkpoints', jid, '--output', 'json'])).stdout) as View[]

describe('checkpoints', () => {
  test('newest first: ID (UUID), TIME, SIZE, PATH as given at the dump; the hint; all names of the command', async () => {
    const job = await world.job('memory', ['2', 'random'])
    const paths = [await world.dump(job, ['--leave-running']), await world.dump(job, ['--leave-running', '--compression', 'tar'])]
    for (const names of [['checkpoints'], ['job', 'checkpoint', 'list'], ['job', 'checkpoints'], ['checkpoint', 'list']]) {
      const { stdout } = await world.ok([...names, job.jid])
      const [header, first, second, blank, hint] = stdout.split('\n').map((line) => line.trim())
      expect(header?.split(/\s+/)).toEqual(['ID', 'TIME', 'SIZE', 'PATH'])
      expect(first).toMatch(
        new RegExp(`^[0-9a-f]{8}-[0-9a-f-]{27}\\s+\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d\\s+\\d+ (KiB|MiB)\\s+${paths[1]}$`),
      )
      expect(second?.endsWith(paths[0] ?? '')).toBe(true)
      expect(blank).toBe('')
      expect(hint).toContain('inspect')
    }
    await job.verify()
  })

  test('none, also for an unknown job: `No checkpoints found for job <JID>`, exit 0', async () => {
    expect((await world.ok(['checkpoints', 'nobody'])).stdout).toBe('No checkpoints found for job nobody\n')
  })

  test('a dump of the process of a job is a checkpoint of the job', async () => {
    const job = await world.job('eventfd')
    const { stdout } = await world.ok(['dump', 'process', String(job.pid)])
    const path = /^Dumped to (.+)$/m.exec(stdout)?.[1]
    expect((await checkpointsOf(job.jid)).map((one) => one.path)).toEqual([path])
    await world.ok(['restore', 'job', job.jid])
    await job.verify()
  })
})

describe('checkpoint inspect', () => {
  test.each(['none', 'tar', 'gzip', 'lz4', 'zlib', 'zstd'])('of %s: processes, open files, memory, sockets', async (compression) => {
    const cwd = world.work()
    const job = await world.job('unix-sockets', [], { cwd })
    const path = await world.dump(job, ['--compression', compression, '--leave-running'])
    const id = (await checkpointsOf(job.jid))[0]?.id ?? ''
    for (const which of [id, path]) {
      const text = (await world.ok(['checkpoint', 'inspect', which, '--output', 'json'])).stdout
      const contents = JSON.stringify(JSON.parse(text))
      expect(contents).toContain(String(job.pid))
      expect(contents).toContain('unix-sockets')
      expect(contents).toContain('listen.sock')
      expect(contents).toContain(job.log)
    }
    expect((await world.ok(['checkpoint', 'inspect', id])).stdout).toContain(String(job.pid))
    await job.verify()
  })

  test('an unknown id: `NotFound: checkpoint … not found`', async () => {
    expect((await world.fails(['checkpoint', 'inspect', 'nobody'])).stderr).toMatch(/NotFound: .*checkpoint/)
    await world.fails(['checkpoint', 'verify', 'nobody'])
    await world.fails(['checkpoint', 'delete', 'nobody'])
  })
})

describe('checkpoint delete', () => {
  test.each(['none', 'zstd'])('%s: files and record are gone, the job stays; a unique prefix is enough', async (compression) => {
    const job = await world.job('eventfd')
    const path = await world.dump(job, ['--compression', compression, '--leave-running'])
    const id = (await checkpointsOf(job.jid))[0]?.id ?? ''
    await world.ok(['checkpoint', 'delete', id.slice(0, 8)])
    expect(existsSync(path)).toBe(false)
    expect(await checkpointsOf(job.jid)).toEqual([])
    await job.verify()
  })

  test('in a directory that a link leads to', async () => {
    const job = await world.job('eventfd')
    const link = join(world.work(), 'link')
    symlinkSync(world.checkpoints, link)
    const path = await world.dump(job, ['--dir', link, '--name', 'linked', '--leave-running'])
    await world.ok(['checkpoint', 'delete', path])
    expect(existsSync(path)).toBe(false)
    await job.verify()
  })

  test('a directory that is no checkpoint is never deleted', async () => {
    const dir = world.work()
    writeFileSync(join(dir, 'precious'), 'x')
    await world.fails(['checkpoint', 'delete', dir])
    await world.fails(['checkpoint', 'delete', '/etc'])
    expect(existsSync(join(dir, 'precious'))).toBe(true)
  })
})

describe('the manifest', () => {
  test('has type, job, kernel, CRIU version, and every file with its size and SHA-256 or other checksum', async () => {
    const job = await world.job('memory', ['2', 'random'])
    const path = await world.dump(job)
    const name = readdirSync(path).find((file) => /manifest/.test(file)) ?? ''
    const manifest = readFileSync(join(path, name), 'utf8')
    expect(manifest).toContain(job.jid)
    expect(manifest).toMatch(/4\.2|40201/)
    for (const file of readdirSync(path)) if (file !== name && file.endsWith('.img')) expect(manifest).toContain(file)
    const pages = readFileSync(join(path, 'pages-1.img'))
    const sums = [createHash('sha256').update(pages).digest('hex'), String(pages.length)]
    expect(sums.some((sum) => manifest.includes(sum))).toBe(true)
  })
})

/** Turns one bit. */
function flip(path: string, offset: number): void {
  const fd = openSync(path, 'r+')
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, offset)
  byte.writeUInt8(byte.readUInt8() ^ 0x10)
  writeSync(fd, byte, 0, 1, offset)
  closeSync(fd)
}

describe('a damaged checkpoint is refused before anything is touched, naming the file', () => {
  test('every file of a directory: truncated, one bit flipped, missing', async () => {
    const job = await world.job('pipes')
    const path = await world.dump(job)
    const good = join(world.work(), 'good')
    cpSync(path, good, { recursive: true, preserveTimestamps: true })
    // Logs and statistics are no part of what is restored.
    const files = readdirSync(good).filter((name) => !/[.]log$|^stats-/.test(name))
    expect(files.length).toBeGreaterThan(10)
    const damages: [string, (file: string) => void][] = [
      ['truncated', (file) => truncateSync(file, Math.floor(statSync(file).size / 2))],
      ['flipped', (file) => flip(file, Math.floor(statSync(file).size / 2))],
      ['missing', (file) => rmSync(file)],
    ]
    // One kind of damage per file keeps this quick; over the files every kind has its turn, and the manifest has all.
    const cases = files.flatMap((file, i) =>
      file.includes('manifest')
        ? damages.map((damage) => [file, ...damage] as const)
        : [[file, ...(damages[i % 3] ?? damages[0]!)] as const],
    )
    for (const [file, kind, damage] of cases) {
      if (statSync(join(good, file)).size === 0 && kind !== 'missing') continue
      damage(join(path, file))
      const { stderr, stdout } = await world.cedana(['restore', 'job', job.jid])
      expect(stdout, `${file} ${kind}`).toBe('')
      expect(stderr, `${file} ${kind}`).toContain(file)
      expect((await world.fails(['checkpoint', 'verify', path])).stderr, `${file} ${kind}`).toContain(file)
      expect(isAlive(job.pid)).toBe(false)
      cpSync(join(good, file), join(path, file), { preserveTimestamps: true })
    }
    await world.ok(['checkpoint', 'verify', path])
    await world.ok(['restore', 'job', job.jid])
    await job.verify()
  }, 300_000)

  test.each(['tar', 'gzip', 'lz4', 'zlib', 'zstd'])(
    'an archive (%s): truncated anywhere, a bit flipped anywhere, garbage at the end',
    async (compression) => {
      const job = await world.job('memory', ['1', 'half'])
      const path = await world.dump(job, ['--compression', compression])
      const good = join(world.work(), 'good')
      cpSync(path, good, { preserveTimestamps: true })
      const { size } = statSync(path)
      const refused = async (what: string) => {
        const { stderr } = await world.fails(['restore', 'job', job.jid])
        expect(stderr, what).toMatch(new RegExp(`DataLoss|${path}`))
        expect(stderr, what).toContain(path)
        expect(isAlive(job.pid)).toBe(false)
        cpSync(good, path, { preserveTimestamps: true })
      }
      for (const part of [0, 0.3, 0.7, 0.97]) {
        truncateSync(path, Math.floor(size * part))
        await refused(`truncated to ${part}`)
      }
      for (const part of [0.1, 0.5, 0.9]) {
        flip(path, Math.floor(size * part))
        await refused(`flipped at ${part}`)
      }
      await world.ok(['checkpoint', 'verify', path])
      await world.ok(['restore', 'job', job.jid])
      await job.verify()
    },
    60_000,
  )

  test('an archive whose names try to leave its directory is refused and writes nothing outside', async () => {
    const job = await world.job('eventfd')
    const path = await world.dump(job, ['--compression', 'tar'])
    const dir = world.work()
    const evil = join(dir, 'evil.tar')
    // The first header of a tar starts with the name; replace it and correct the header's sum.
    const bytes = readFileSync(path)
    bytes.fill(0, 0, 100)
    bytes.write('../../escaped', 0)
    bytes.fill(0x20, 148, 156)
    const sum = bytes.subarray(0, 512).reduce((total, byte) => total + byte, 0)
    bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
    writeFileSync(evil, bytes)
    expect((await world.fails(['restore', 'process', '--path', evil])).stderr).toContain(evil)
    expect(existsSync(join(dir, '..', '..', 'escaped'))).toBe(false)
    await until('nothing runs', () => !isAlive(job.pid))
  })
})
