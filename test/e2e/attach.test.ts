/** `imprint attach` as a program, beside the running service, with the NBD clients that people have. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, type TestContext, test } from 'node:test'
import { COMMAND } from '../../src/serve/nbd/protocol.ts'
import { ImageRequests, noise } from '../durability/image-requests.ts'
import { adminToken, folderInMemory, type MortalService, removeFolder, startMortal } from '../durability/mortal-service.ts'
import { lacking, run, scratch } from '../fixtures/disk/tools.ts'
import { NbdClient } from '../fixtures/nbd/nbd-client.ts'
import { freePort } from '../peers/daemon.ts'
import { cast } from '../peers/identity-client.ts'

const MiB = 1024 * 1024
const CHUNK = 65_536
/** Data, a hole that no chunk is stored for, and data that ends within a chunk. */
const image = Buffer.concat([noise(1, 5 * MiB), Buffer.alloc(4 * MiB), noise(2, 3 * MiB + 512)])
const CHUNKS = 5 * 16 + 3 * 16 + 1
const main = resolve(import.meta.dirname, '../../src/main.ts')

let folder = ''
let service: MortalService
let requests: ImageRequests
let listen = ''
before(async () => {
  folder = await folderInMemory('attach')
  listen = `127.0.0.1:${await freePort()}`
  await start()
})
after(async () => {
  await service?.stop()
  await removeFolder(folder)
})
async function start(): Promise<void> {
  service = await startMortal(folder, { IMPRINT_LISTEN: listen })
  requests = new ImageRequests(service.address, await adminToken(service))
}
async function newImage(bytes: Buffer, format = 'raw'): Promise<string> {
  const id = randomUUID()
  await requests.create(id, 'attached', format)
  await requests.send(id, new Uint8Array(bytes))
  return id
}

interface Attached {
  readonly process: ChildProcess
  readonly uri: string
  readonly socket: string
  readonly export: string
  /** Of the last progress that it told: what was fetched over the line so far. */
  readonly progress: { chunksFetched: number; chunksKept: number; chunksDamaged: number; retries: number }
  /** @returns its exit status */
  stop(): Promise<number>
  kill(): Promise<void>
}
async function attach(t: TestContext, id: string, ...options: readonly string[]): Promise<Attached> {
  const child = spawn(process.execPath, [main, 'attach', id, '--json', ...options], {
    env: {
      ...process.env,
      NODE_TEST_CONTEXT: undefined,
      OS_AUTH_URL: `${service.address}/identity/v3`,
      OS_USERNAME: cast.admin.user,
      OS_PASSWORD: cast.admin.password,
      OS_PROJECT_NAME: cast.admin.project,
      XDG_RUNTIME_DIR: folder,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = once(child, 'exit')
  t.after(async () => {
    child.kill('SIGKILL')
    await ended
  })
  const progress = { chunksFetched: 0, chunksKept: 0, chunksDamaged: 0, retries: 0 }
  const said: string[] = []
  createInterface(child.stderr).on('line', (line) => {
    if (line.startsWith('{"progress"')) Object.assign(progress, JSON.parse(line).progress)
    else said.push(line)
  })
  let text = ''
  for await (const piece of child.stdout) {
    text += piece
    if (text.endsWith('}\n')) break
  }
  assert.ok(text !== '', `attach ended: ${said.join('\n')}`)
  return {
    process: child,
    ...JSON.parse(text),
    progress,
    async stop() {
      child.kill('SIGTERM')
      const [status] = await ended
      return status
    },
    async kill() {
      child.kill('SIGKILL')
      await ended
    },
  }
}
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((done) => setTimeout(done, 20))
}
/** What lies in a cache, by its indexes. */
const keptIn = (cache: string): number =>
  existsSync(cache)
    ? readdirSync(cache)
        .filter((name) => name.endsWith('.index'))
        .reduce((sum, name) => sum + Math.floor(statSync(join(cache, name)).size / 44), 0)
    : 0
/** With the page of its layout. */
const ALL_KEPT = CHUNKS + 1

test('nbdcopy and qemu-img read the disk of an image, raw and qcow2, its holes as holes', {
  skip: lacking('nbdcopy', 'nbdinfo', 'qemu-img'),
}, async (t) => {
  const path = await scratch(t)
  await writeFile(path('expected.raw'), image)
  await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', '-c', path('expected.raw'), path('disk.qcow2'))
  for (const [bytes, format] of [[image, 'raw'] as const, [await readFile(path('disk.qcow2')), 'qcow2'] as const]) {
    const id = await newImage(bytes, format)
    const attached = await attach(t, id, '--cache', path(`cache-${format}`))
    const [shown] = JSON.parse(await run('nbdinfo', '--json', attached.uri)).exports
    assert.deepEqual(
      [shown['export-size'], shown.is_read_only, shown.can_multi_conn, shown.description],
      [image.length, true, true, `image ${id}`],
    )
    const map: { type: number; length: number }[] = JSON.parse(await run('nbdinfo', '--json', '--map', attached.uri))
    const dataBytes = map.reduce((sum, { type, length }) => sum + (type === 0 ? length : 0), 0)
    assert.ok(dataBytes >= 8 * MiB + 512 && dataBytes < 9 * MiB, `${dataBytes} bytes of data`)
    await run('nbdcopy', '--connections=4', attached.uri, path('out.raw'))
    assert.ok((await readFile(path('out.raw'))).equals(image))
    await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', attached.uri, path('expected.raw'))
    await requests.delete(id)
    assert.equal(await attached.stop(), 0)
    assert.ok(!existsSync(attached.socket))
    await assert.rejects(requests.ask('GET', `/v1/exports/${attached.export}`), /404/)
  }
})

test('two that share a cache fetch each chunk once, side by side and one after the other', {
  skip: lacking('nbdcopy'),
}, async (t) => {
  const path = await scratch(t)
  const cache = path('cache')
  const id = await newImage(image)
  const [one, two] = [await attach(t, id, '--cache', cache), await attach(t, id, '--cache', cache)]
  await run('nbdcopy', one.uri, path('one.raw'))
  await until(() => one.progress.chunksFetched === CHUNKS && keptIn(cache) === ALL_KEPT)
  await run('nbdcopy', two.uri, path('two.raw'))
  await until(() => two.progress.chunksKept === CHUNKS)
  assert.equal(two.progress.chunksFetched, 0)
  assert.ok((await readFile(path('two.raw'))).equals(image))
  for (const each of [one, two]) assert.equal(await each.stop(), 0)
  const three = await attach(t, id, '--cache', cache)
  await run('nbdcopy', three.uri, path('three.raw'))
  await until(() => three.progress.chunksKept === CHUNKS)
  assert.equal(three.progress.chunksFetched, 0)
  await three.stop()
  await requests.delete(id)
})

test('who is killed in the middle leaves a cache that the next one goes on with', { skip: lacking('nbdcopy') }, async (t) => {
  const path = await scratch(t)
  const id = await newImage(image)
  const first = await attach(t, id, '--cache', path('cache'))
  const client = await NbdClient.open(first.socket, '')
  for (let chunk = 0; chunk < 40; chunk += 1) await client.request(COMMAND.READ, { offset: chunk * CHUNK, length: CHUNK })
  await first.kill()
  const kept = keptIn(path('cache'))
  assert.ok(kept > 20, `${kept} kept`)
  const second = await attach(t, id, '--cache', path('cache'), '--socket', first.socket)
  await run('nbdcopy', second.uri, path('out.raw'))
  assert.ok((await readFile(path('out.raw'))).equals(image))
  await until(() => second.progress.chunksKept + second.progress.chunksFetched === CHUNKS)
  assert.ok(second.progress.chunksKept >= kept - 2, 'the page of the layout is among them')
  assert.equal(await second.stop(), 0)
  await requests.delete(id)
})

test('reads sit out a service that is killed and comes back, and one that is stopped', async (t) => {
  const path = await scratch(t)
  const id = await newImage(image)
  const attached = await attach(t, id, '--cache', path('cache'))
  const client = await NbdClient.open(attached.socket, '')
  const read = async (offset: number) => {
    const { errno, data } = await client.request(COMMAND.READ, { offset, length: CHUNK })
    assert.ok(data?.equals(image.subarray(offset, offset + CHUNK)), `errno ${errno} at ${offset}`)
  }
  await read(0)
  for (const end of ['kill', 'stop'] as const) {
    await service[end]()
    const answers = [9, 10, 11].map((at) => read(at * MiB + (end === 'kill' ? 0 : 4 * CHUNK)))
    await start()
    await Promise.all(answers)
  }
  await until(() => attached.progress.retries > 0)
  client.socket.destroy()
  assert.equal(await attached.stop(), 0)
  await requests.delete(id)
})

test('an export that was ended is read no more; a socket in use is refused, and leaves no export behind', async (t) => {
  const path = await scratch(t)
  const id = await newImage(image)
  const attached = await attach(t, id, '--cache', path('cache'))
  const client = await NbdClient.open(attached.socket, '')
  await requests.ask('DELETE', `/v1/exports/${attached.export}`)
  const { errno } = await client.request(COMMAND.READ, { offset: 0, length: 512 })
  assert.equal(errno, 5, 'EIO')
  await assert.rejects(attach(t, id, '--cache', path('cache'), '--socket', attached.socket), /another program listens.*--socket/s)
  client.socket.destroy()
  assert.equal(await attached.stop(), 0)
  const { exports } = await requests.json<{ exports: { image: { id: string } }[] }>('GET', '/v1/exports')
  assert.ok(!exports.some((one) => one.image.id === id), 'also who could not begin leaves none')
  await requests.delete(id)
})
