/** Not a test of cedana: shows that each test program survives plain CRIU, or fails as the table says, so that a failure across cedana is cedana's. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { PROGRAMS, titleOf } from '../programs/table.js'
import { plainDump, plainRestore } from '../support/plain-criu.js'
import { isAlive, requires, tree } from '../support/processes.js'
import { useWorld } from '../support/world.js'

describe('plain criu', () => {
  const world = useWorld({ withoutDaemon: true })

  for (const program of PROGRAMS) {
    const { name, args = [], flags = [], capability, refused } = program
    test(titleOf(program), async (context) => {
      if (capability !== undefined) requires(context, capability)
      const started = await world.foreign(name, args)
      const images = join(world.work(), 'images')
      if (refused?.plain === 'fails') {
        await expect(plainDump(started.pid, images, [], flags)).rejects.toThrow(/criu dump/)
        expect(isAlive(started.pid)).toBe(true)
        return started.verify()
      }
      await plainDump(started.pid, images, tree(started.pid), flags)
      await plainRestore(images, flags)
      if (refused?.plain === 'loses') await expect(started.verify()).rejects.toThrow(/FAIL/)
      else await started.verify()
      expect(readFileSync(started.log, 'utf8')).toMatch(/^READY$/m)
    })
  }
})
