/** An npm registry that has what node_modules has: packages are installed from it as from any other, without a network. */
import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'

const ROOT = join(import.meta.dirname, '..', '..')
const execute = promisify(execFile)

interface Manifest {
  readonly name: string
  readonly version: string
}
interface Installed {
  readonly directory: string
  readonly manifest: Manifest
}

function installedPackages(): readonly Installed[] {
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as { packages: Record<string, { dev?: boolean }> }
  return Object.entries(lock.packages)
    .filter(([place, { dev }]) => place !== '' && dev !== true && existsSync(join(ROOT, place, 'package.json')))
    .map(([place]) => {
      const directory = join(ROOT, place)
      return { directory, manifest: JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as Manifest }
    })
}

export interface CheckoutRegistry {
  readonly url: string
  close(): void
}

export async function checkoutRegistry(): Promise<CheckoutRegistry> {
  const packages = installedPackages()
  const server = createServer((request, response) => {
    const [, name = '', version] = decodeURIComponent(request.url ?? '').split(/^\/|\/-\//)
    const named = packages.filter(({ manifest }) => manifest.name === name)
    const one = named.find(({ manifest }) => manifest.version === version)
    if (one) {
      const argv = ['-c', '--hard-dereference', '--exclude=./node_modules', '--transform=s,^[.],package,', '-C', one.directory, '.']
      void execute('tar', argv, { encoding: 'buffer', maxBuffer: 2 ** 28 }).then(({ stdout }) => response.end(stdout))
    } else if (named.length > 0 && version === undefined) {
      const versions = named.map(({ manifest }) => [
        manifest.version,
        { ...manifest, dist: { tarball: `${url()}${encodeURIComponent(name)}/-/${manifest.version}` } },
      ])
      response.end(JSON.stringify({ name, 'dist-tags': {}, versions: Object.fromEntries(versions) as unknown }))
    } else {
      response.writeHead(404).end('{}')
    }
  })
  const url = (): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { url: url(), close: () => server.close() }
}
