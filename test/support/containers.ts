/** The containers of a test file that has a world: gone, and judged, before it. */
import { afterAll, beforeAll } from 'vitest'
import { Containers, type ContainersOptions, type OciRuntime } from './oci.js'

export * from './oci.js'

export function useContainers(world: ContainersOptions, runtime: OciRuntime = 'runc'): Containers {
  const containers = new Containers(world, runtime)
  beforeAll(() => containers.open())
  afterAll(() => containers.close(), 60_000)
  return containers
}
