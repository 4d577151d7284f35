/** Containers of containerd, made by its own command, as cedana sees them. */
import { describe, expect, test } from 'vitest'
import { useContainerd } from '../support/containerd.js'
import { useWorld } from '../support/world.js'

const world = useWorld()
const containerd = useContainerd(world)

describe('query containerd', () => {
  test('lists containers by id, namespace, image and runtime', async () => {
    const image = await containerd.busybox()
    const id = containerd.id('listed')
    await containerd.run(image, id, ['sleep', '1000'])
    const { stdout } = await world.ok(['query', 'containerd', ...containerd.flags])
    const [header, row] = stdout.split('\n').map((line) => line.trim().split(/\s{2,}/))
    expect(header).toEqual(['ID', 'NAMESPACE', 'IMAGE', 'RUNTIME'])
    expect(row).toEqual([id, containerd.namespace, image, 'io.containerd.runc.v2'])
    const inspected = JSON.parse((await world.ok(['query', 'containerd', ...containerd.flags, id, '--inspect', '-o', 'json'])).stdout) as {
      pid: number
    }[]
    expect(inspected).toMatchObject([{ id, image, status: 'running', pid: (await containerd.task(id))?.pid }])
    await containerd.remove(id)
  })

  test('takes socket and namespace from the environment, as containerd’s own commands do', async () => {
    const env = { CONTAINERD_ADDRESS: containerd.address, CONTAINERD_NAMESPACE: containerd.namespace }
    const { stderr } = await world.fails(['query', 'containerd', 'nobody'], { env })
    expect(stderr).toBe(`Error: NotFound: container nobody: does not exist in ${containerd.namespace}\n`)
  })

  test('says where containerd was looked for', async () => {
    const { stderr } = await world.fails(['query', 'containerd', '--address', `${world.dir}/nobody.sock`])
    expect(stderr).toContain(`containerd cannot be reached at ${world.dir}/nobody.sock`)
  })
})
