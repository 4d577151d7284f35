/** As much of a registry of images as whoever pulls one by its digest needs: the blobs of an OCI layout. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { join } from 'node:path'

export class Registry implements AsyncDisposable {
  private constructor(
    private readonly server: Server,
    /** `localhost:PORT`, which is talked to without encryption. */
    readonly host: string,
  ) {}

  /** `directory`: an empty one; `archive`: of `ctr images export`. */
  static async open(directory: string, archive: string): Promise<Registry> {
    execFileSync('tar', ['-C', directory, '-xf', archive])
    const server = createServer(({ url = '', method }, response) => {
      const [, kind, digest = ''] = /\/(manifests|blobs)\/sha256:([0-9a-f]+)$/.exec(url) ?? []
      const blob = join(directory, 'blobs/sha256', digest)
      if (digest === '' || !existsSync(blob)) return void response.writeHead(404).end()
      const bytes = readFileSync(blob)
      const type = kind === 'manifests' ? (JSON.parse(bytes.toString()) as { mediaType: string }).mediaType : 'application/octet-stream'
      response.writeHead(200, { 'content-type': type, 'content-length': bytes.length, 'docker-content-digest': `sha256:${digest}` })
      response.end(method === 'HEAD' ? undefined : bytes)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    return new Registry(server, `localhost:${typeof address === 'object' ? (address?.port ?? 0) : 0}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections()
    this.server.close()
    await once(this.server, 'close')
  }
}
