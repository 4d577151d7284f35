/** The containerd of a test file that has a world: gone, and judged, before it. */
import { afterAll, beforeAll } from 'vitest'
import { type ContainerdOptions, type Surroundings, TestContainerd } from './own-containerd.js'
import type { World } from './world.js'

export * from './own-containerd.js'

export function useContainerd(world: Surroundings & Pick<World, 'blame'>, options: ContainerdOptions = {}, name = 'ctd'): TestContainerd {
  const containerd = new TestContainerd(world, options, name)
  beforeAll(() => containerd.open(), 60_000)
  afterAll(() => containerd.close().catch((left: unknown) => world.blame(left)), 120_000)
  return containerd
}
