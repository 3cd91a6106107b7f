/** Exports of the running service, with the NBD clients that people have. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, type TestContext, test } from 'node:test'
import { COMMAND } from '../../src/serve/nbd/protocol.ts'
import { ImageRequests, noise, Refused } from '../durability/image-requests.ts'
import { adminToken, folderInMemory, type MortalService, removeFolder, startMortal } from '../durability/mortal-service.ts'
import { lacking, run, scratch } from '../fixtures/disk/tools.ts'
import { NbdClient } from '../fixtures/nbd/nbd-client.ts'
import { certificates, preSharedKeys } from '../fixtures/nbd/tls-keys.ts'
import { freePort } from '../peers/daemon.ts'

const MiB = 1024 * 1024
/** Data, a hole that no chunk is stored for, and data that ends within a chunk. */
const disk = Buffer.concat([noise(1, 3 * MiB), Buffer.alloc(4 * MiB), noise(2, MiB + 512)])

let folder = ''
let service: MortalService
let token = ''
let requests: ImageRequests
before(async () => {
  folder = await folderInMemory('exports')
  await start()
})
after(async () => {
  await service?.stop()
  await removeFolder(folder)
})

async function start(settings: Readonly<Record<string, string>> = {}): Promise<void> {
  service = await startMortal(folder, settings)
  token ||= await adminToken(service) // a token outlives the service
  requests = new ImageRequests(service.address, token)
}

async function newImage(file: Buffer, format = 'raw'): Promise<string> {
  const id = randomUUID()
  await requests.create(id, 'exported', format)
  await requests.send(id, new Uint8Array(file))
  return id
}
interface Made {
  readonly id: string
  readonly uri: string
  readonly tcp: string | null
  /** The secret in both. */
  readonly name: string
}
async function newExport(image: string, seconds = 600, more: object = {}): Promise<Made> {
  return madeExport({ image, seconds, ...more })
}
async function madeExport(wish: object): Promise<Made> {
  const made = await requests.json<{ id: string; uris: { unix: string; tcp: string | null } }>('POST', '/v1/exports', wish)
  const { unix, tcp } = made.uris
  return { id: made.id, uri: unix, tcp, name: new URL(unix).pathname.slice(1) }
}
const socketPath = () => join(folder, 'data/nbd.sock')
async function read(client: NbdClient, offset: number, length: number): Promise<Buffer> {
  const { errno, data } = await client.request(COMMAND.READ, { offset, length })
  assert.ok(data, `errno ${errno} at ${offset}`)
  return data
}
const endExport = (id: string) => requests.ask('DELETE', `/v1/exports/${id}`)
async function assertStoreIsEmpty(): Promise<void> {
  await requests.job('collect')
  const { chunks, packs, manifests } = await requests.stats()
  assert.deepEqual({ chunks, packs, manifests }, { chunks: 0, packs: 0, manifests: 0 })
}
async function rawFile(t: TestContext): Promise<(name: string) => string> {
  const path = await scratch(t)
  await writeFile(path('expected.raw'), disk)
  return path
}

test('nbdinfo shows the disk of an image, its holes, and nothing to strangers', { skip: lacking('nbdinfo') }, async () => {
  const image = await newImage(disk)
  const { id, uri } = await newExport(image)
  const [shown] = JSON.parse(await run('nbdinfo', '--json', uri)).exports
  assert.deepEqual(
    [shown['export-size'], shown.is_read_only, shown.can_multi_conn, shown.description],
    [disk.length, true, true, `image ${image}`],
  )
  const map: { offset: number; length: number; type: number }[] = JSON.parse(await run('nbdinfo', '--json', '--map', uri))
  assert.deepEqual(
    map.map(({ offset, length, type }) => [offset, length, type]),
    [
      [0, 3 * MiB, 0],
      [3 * MiB, 4 * MiB, 3],
      [7 * MiB, MiB + 512, 0],
    ],
  )
  const listed = JSON.parse(await run('nbdinfo', '--json', '--list', `nbd+unix:///?socket=${socketPath()}`))
  assert.deepEqual(listed.exports, [])
  await assert.rejects(run('nbdinfo', `nbd+unix:///${'A'.repeat(43)}?socket=${socketPath()}`), /No such file|not found/)
  await endExport(id)
  await assert.rejects(run('nbdinfo', uri), /No such file|not found/)
  await requests.delete(image)
  await assertStoreIsEmpty()
})

test('nbdcopy and qemu-img read a raw image and a qcow2 as the disk that they are', {
  skip: lacking('nbdcopy', 'qemu-img'),
}, async (t) => {
  const path = await rawFile(t)
  await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', '-c', path('expected.raw'), path('disk.qcow2'))
  const images = [await newImage(disk), await newImage(await readFile(path('disk.qcow2')), 'qcow2')]
  for (const [at, image] of images.entries()) {
    const { id, uri } = await newExport(image)
    await run('nbdcopy', '--connections=4', uri, path(`${at}.raw`))
    assert.ok((await readFile(path(`${at}.raw`))).equals(disk))
    await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', uri, path('expected.raw'))
    await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', uri, path(`${at}.qcow2`))
    await run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', path(`${at}.qcow2`), path('expected.raw'))
    await assert.rejects(run('nbdcopy', path('expected.raw'), uri), /read-only/)
    await endExport(id)
    await requests.delete(image)
  }
  await assertStoreIsEmpty()
})

for (const [tool, args] of [
  ['nbdkit', (uri: string, socket: string) => ['-f', '-U', socket, 'nbd', `uri=${uri}`]],
  ['qemu-nbd', (uri: string, socket: string) => ['-f', 'raw', '-t', '-r', '-k', socket, uri]],
] as const) {
  test(`${tool} serves on what it reads, and is cut off when the export ends`, { skip: lacking(tool, 'nbdcopy') }, async (t) => {
    const path = await rawFile(t)
    const image = await newImage(disk)
    const { id, uri } = await newExport(image)
    const child = spawn(tool, args(uri, path('peer.sock')), { stdio: 'ignore' })
    const ended = once(child, 'exit')
    t.after(() => {
      child.kill()
      return ended
    })
    while (!existsSync(path('peer.sock'))) {
      assert.equal(child.exitCode, null, `${tool} ended`)
      await new Promise((done) => setTimeout(done, 20))
    }
    const peer = `nbd+unix:///?socket=${path('peer.sock')}`
    await run('nbdcopy', peer, path('out.raw'))
    assert.ok((await readFile(path('out.raw'))).equals(disk))
    await endExport(id)
    await assert.rejects(run('nbdcopy', peer, path('after.raw')))
    await requests.delete(image)
    await assertStoreIsEmpty()
  })
}

test('a deleted image is read on to its end, over collections, by who had it open and who comes later', async () => {
  const image = await newImage(disk)
  const { id, name, uri } = await newExport(image)
  const client = await NbdClient.open(socketPath(), name)
  await read(client, 0, 65_536)
  await requests.delete(image)
  for (let round = 0; round < 2; round += 1) await requests.job('collect')
  for (let offset = 0; offset < disk.length; offset += MiB) {
    const length = Math.min(MiB, disk.length - offset)
    assert.ok((await read(client, offset, length)).equals(disk.subarray(offset, offset + length)), `at ${offset}`)
  }
  assert.match(await run('nbdinfo', '--size', uri), new RegExp(`^${disk.length}$`, 'm'))
  const { faults } = await requests.job('check', { readData: true })
  assert.deepEqual(faults, [])
  const closed = once(client.socket, 'close')
  await endExport(id)
  await closed
  await assertStoreIsEmpty()
})

test('after kill -9 the same name opens the same disk, of an image that is gone, and of a lost database', async () => {
  const image = await newImage(disk)
  const { id, name } = await newExport(image)
  await requests.delete(image)
  const assertRead = async () => {
    const client = await NbdClient.open(socketPath(), name)
    for (const offset of [0, 2 * MiB, 7 * MiB]) {
      assert.ok((await read(client, offset, MiB)).equals(disk.subarray(offset, offset + MiB)), `at ${offset}`)
    }
    client.socket.destroy()
  }
  await assertRead()
  await service.kill()
  await start()
  await requests.job('collect')
  await assertRead()
  await service.kill()
  for (const file of ['catalog.db', 'index.db']) {
    for (const suffix of ['', '-wal', '-shm']) await removeFolder(join(folder, 'data', file + suffix))
  }
  token = '' // tokens are in the database only
  await start()
  await assertRead()
  await requests.job('collect')
  await assertRead()
  await endExport(id)
  await assertStoreIsEmpty()
})

test('QEMU goes on reading when the service was killed and comes back', { skip: lacking('qemu-io') }, async (t) => {
  const image = await newImage(disk)
  const { id, name } = await newExport(image)
  const how = `driver=nbd,server.type=unix,server.path=${socketPath()},export=${name},reconnect-delay=120`
  const qemu = spawn('qemu-io', ['-r', '--image-opts', how], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(qemu, 'exit')
  t.after(() => {
    qemu.kill()
    return ended
  })
  const lines = createInterface(qemu.stdout)[Symbol.asyncIterator]()
  const told = async (pattern: RegExp): Promise<void> => {
    for (;;) {
      const { value, done } = await lines.next()
      assert.ok(!done, 'qemu-io ended')
      if (pattern.test(value)) return
      assert.doesNotMatch(value, /failed|error/i)
    }
  }
  qemu.stdin.write('read 0 64k\n')
  await told(/read 65536\/65536/)
  await service.kill()
  const answer = told(/read 131072\/131072/)
  qemu.stdin.write('read 1M 128k\n')
  await start()
  await answer
  qemu.stdin.end('quit\n')
  await ended
  await endExport(id)
  await requests.delete(image)
  await assertStoreIsEmpty()
})

test('a writable export is a disk for all tools, and leaves the image as it was', {
  skip: lacking('nbdcopy', 'nbdinfo', 'qemu-img', 'qemu-io'),
}, async (t) => {
  const path = await rawFile(t)
  const image = await newImage(disk)
  const { id, uri } = await newExport(image, 600, { writable: true })
  const [shown] = JSON.parse(await run('nbdinfo', '--json', uri)).exports
  for (const can of ['can_multi_conn', 'can_flush', 'can_fua', 'can_trim', 'can_zero', 'can_fast_zero'])
    assert.equal(shown[can], true, can)
  assert.equal(shown.is_read_only, false)
  await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', uri, path('expected.raw'))
  const commands = ['write -P 7 100k 1M', 'write -f -P 9 5M 512', 'write -zu 2M 512k', 'discard 0 64k', 'flush']
  const reads = ['read -P 7 100k 1M', 'read -P 9 5M 512', 'read -P 0 2M 512k', 'read -P 0 0 64k']
  const said = await run('qemu-io', '-f', 'raw', ...[...commands, ...reads].flatMap((one) => ['-c', one]), uri)
  assert.doesNotMatch(said, /failed|error/i)
  const other = noise(3, disk.length)
  await writeFile(path('other.raw'), other)
  await run('nbdcopy', '--connections=4', '--flush', path('other.raw'), uri)
  await run('nbdcopy', uri, path('back.raw'))
  assert.ok((await readFile(path('back.raw'))).equals(other))
  assert.ok((await requests.fetch(image)).equals(disk))
  await endExport(id)
  await requests.delete(image)
  assert.deepEqual(await readdir(join(folder, 'data/scratch')), [])
  await assertStoreIsEmpty()
})

test('fio reads back what it wrote to a blank disk, also after the service was killed', { skip: lacking('fio') }, async (t) => {
  const path = await scratch(t)
  const { id, uri } = await madeExport({ size: 32 * MiB })
  const job = ['--name=verified', '--ioengine=nbd', `--uri=${uri}`, '--size=32m', '--bsrange=512-128k', '--blockalign=512']
  const verify = ['--iodepth=16', '--verify=crc32c', '--verify_fatal=1', `--aux-path=${path('')}`, '--minimal']
  await run('fio', ...job, ...verify, '--rw=randrw')
  await run('fio', ...job, ...verify, '--rw=randwrite', '--do_verify=0', '--end_fsync=1', '--randseed=5')
  await service.kill()
  await start()
  await run('fio', ...job, ...verify, '--rw=randwrite', '--verify_only', '--randseed=5')
  await endExport(id)
  assert.deepEqual(await readdir(join(folder, 'data/scratch')), [])
})

test('after kill -9 of the service a writable export has what was flushed', { skip: lacking('qemu-img') }, async (t) => {
  const path = await scratch(t)
  const image = await newImage(disk)
  const { id, name, uri } = await newExport(image, 600, { writable: true })
  const client = await NbdClient.open(socketPath(), name)
  const bytes = noise(4, 300_000)
  const ok = async (command: number, fields: Parameters<NbdClient['request']>[1]) =>
    assert.equal((await client.request(command, fields)).errno, 0)
  await ok(COMMAND.WRITE, { offset: 1000, data: bytes })
  await ok(COMMAND.WRITE_ZEROES, { offset: MiB, length: 65_536 })
  await ok(COMMAND.FLUSH, {})
  await ok(COMMAND.WRITE, { offset: 2 * MiB, data: bytes.subarray(0, 512) }) // not flushed: it may be lost
  await service.kill()
  await start()
  const expected = Buffer.from(disk)
  bytes.copy(expected, 1000)
  expected.fill(0, MiB, MiB + 65_536)
  await run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', uri, path('out.raw'))
  const found = await readFile(path('out.raw'))
  const unflushed = found.subarray(2 * MiB, 2 * MiB + 512)
  assert.ok(
    [disk.subarray(2 * MiB), bytes].some((either) => either.subarray(0, 512).equals(unflushed)),
    'the old or the new',
  )
  unflushed.copy(expected, 2 * MiB)
  assert.ok(found.equals(expected))
  await endExport(id)
  await requests.delete(image)
  await assertStoreIsEmpty()
})

test('an export that expires closes its connections, and its bytes go', async () => {
  const image = await newImage(disk)
  const { id, name, uri } = await newExport(image, 2)
  const client = await NbdClient.open(socketPath(), name)
  await requests.delete(image)
  await read(client, 0, 512)
  await once(client.socket, 'close')
  await assert.rejects(run('nbdinfo', uri))
  const gone = (error: unknown) => error instanceof Refused && error.status === 404
  await assert.rejects(requests.ask('GET', `/v1/exports/${id}`), gone)
  await assertStoreIsEmpty()
})

test('over TCP disks are served in TLS to clients that show a certificate or know a key, and to no others', {
  skip: lacking('nbdcopy', 'nbdinfo', 'qemu-img', 'openssl', 'psktool'),
}, async (t) => {
  const path = await rawFile(t)
  const { clientFolder, strangerFolder } = await certificates(path('certificates'))
  await preSharedKeys(path('keys'), ['alice'])
  await service.stop()
  const port = await freePort()
  await start({
    IMPRINT_NBD_LISTEN: `0.0.0.0:${port}`,
    IMPRINT_NBD_TLS_CERTIFICATE: join(clientFolder, 'server-cert.pem'),
    IMPRINT_NBD_TLS_KEY: join(clientFolder, 'server-key.pem'),
    IMPRINT_NBD_TLS_CLIENT_CA: join(clientFolder, 'ca-cert.pem'),
    IMPRINT_NBD_PSK_FILE: path('keys/keys.psk'),
  })
  const image = await newImage(disk)
  const { id, tcp, uri, name } = await newExport(image)
  assert.equal(tcp, `nbds://127.0.0.1:${port}/${name}`)
  await run('nbdcopy', `${tcp}?tls-certificates=${clientFolder}`, path('out.raw'))
  assert.ok((await readFile(path('out.raw'))).equals(disk))
  await run('nbdinfo', `nbds://alice@127.0.0.1:${port}/${name}?tls-psk-file=${path('keys/keys.psk')}`)
  await run(
    'qemu-img',
    'compare',
    '--object',
    `tls-creds-x509,id=tls,dir=${clientFolder},endpoint=client`,
    '--image-opts',
    `driver=nbd,host=127.0.0.1,port=${port},export=${name},tls-creds=tls`,
    `driver=raw,file.driver=file,file.filename=${path('expected.raw')}`,
  )
  await assert.rejects(run('nbdinfo', `${tcp}?tls-certificates=${strangerFolder}`))
  await assert.rejects(run('nbdinfo', `nbd://127.0.0.1:${port}/${name}`), 'in clear text')
  assert.match(await run('nbdinfo', uri), /without TLS/, 'the unix socket needs none')
  const metrics = await (await fetch(`${service.address}/metrics`)).text()
  const read = Number(/imprint_nbd_bytes_total\{transport="tcp",direction="read"\} (\d+)/.exec(metrics)?.[1])
  assert.ok(read >= 4 * MiB, `${read} bytes were counted`)
  await endExport(id)
  await requests.delete(image)
  await assertStoreIsEmpty()
})

test('a stop lets the request under way finish, and ends connections', async () => {
  const image = await newImage(disk)
  const { id, name } = await newExport(image)
  const client = await NbdClient.open(socketPath(), name)
  const closed = once(client.socket, 'close')
  await service.stop()
  await closed
  assert.equal(existsSync(socketPath()), false)
  await start()
  await endExport(id)
  await requests.delete(image)
  await assertStoreIsEmpty()
})
