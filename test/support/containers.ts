/** The containers of a test file that has a world: gone, and judged, before it. */
import { afterAll, beforeAll } from 'vitest'
import { Containers, type ContainersOptions, type OciRuntime } from './oci.js'
import type { World } from './world.js'

export * from './oci.js'

export function useContainers(world: ContainersOptions & Pick<World, 'blame'>, runtime: OciRuntime = 'runc'): Containers {
  const containers = new Containers(world, runtime)
  beforeAll(() => containers.open())
  afterAll(() => containers.close().catch((left: unknown) => world.blame(left)), 120_000)
  return containers
}
