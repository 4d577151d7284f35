import { defineGpu } from '../contract/gpu.js'

export const cuda = defineGpu({
  name: 'cuda',
  summary: "NVIDIA GPUs, by the driver's own checkpoints",
  support: 'experimental',
  requires: [{ root: true }],
  load: async (settings) => (await import('./gpu.js')).cudaGpu(settings),
})
