import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { basename, join } from 'node:path'
import { KiB, MiB } from '../../src/base/units.ts'
import { must } from '../peers/command.ts'
import type { Peer } from '../peers/daemon.ts'

/** A raw image of 3 MB with a hole in it. */
export async function makeRawImage(folder: string): Promise<string> {
  const path = join(folder, 'disk.raw')
  await writeFile(path, Buffer.concat([randomBytes(1_000_000), Buffer.alloc(1_000_000), randomBytes(1_000_000)]))
  return path
}

/** A qcow2 image of a disk of 8 MiB with a little data in it. */
export async function makeQcow2Image(folder: string): Promise<string> {
  const raw = join(folder, 'disk-of-qcow2.raw')
  const path = join(folder, 'disk.qcow2')
  await writeFile(raw, Buffer.concat([randomBytes(256 * KiB), Buffer.alloc(8 * MiB - 256 * KiB)]))
  await must(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, path])
  return path
}

/** Serves the files over HTTP on loopback, for the service to fetch. */
export async function serveFiles(
  paths: readonly string[],
): Promise<Peer & { readonly port: number; urlOf(path: string): string }> {
  const byName = new Map(paths.map((path) => [`/${basename(path)}`, path]))
  const server = createServer(async (request, response) => {
    const path = byName.get(request.url ?? '')
    if (!path) return response.writeHead(404).end()
    const bytes = await readFile(path)
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes.length }).end(bytes)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const stop = async () => {
    server.close()
    server.closeAllConnections()
  }
  return { name: 'files', port, urlOf: (path) => `http://127.0.0.1:${port}/${basename(path)}`, stop }
}
