/** The services that every gRPC server should have: health and reflection. */
import type { Server } from '@grpc/grpc-js'
import { HealthImplementation } from 'grpc-health-check'
import { ReflectionService } from '@grpc/reflection'
import { FILE_DESCRIPTORS } from './gen/descriptor.js'

const SERVICES = ['', 'cedana.v1.DaemonService']

/** Returns how to say that the daemon no longer serves. */
export function addStandardServices(server: Server): () => void {
  const health = new HealthImplementation(Object.fromEntries(SERVICES.map((name) => [name, 'SERVING'])))
  health.addToServer(server)
  // Of a package definition it reads the descriptors alone.
  const files = FILE_DESCRIPTORS.map((file) => Buffer.from(file, 'base64'))
  const definition = { cedana: { fileDescriptorProtos: files, format: '', type: {} } }
  new ReflectionService(definition as ConstructorParameters<typeof ReflectionService>[0]).addToServer(server)
  return () => {
    for (const name of SERVICES) health.setStatus(name, 'NOT_SERVING')
  }
}
