import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { after, before, type TestContext, test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { wrapDisk } from '../../disk/formats/index.ts'
import { deleteImage } from '../delete-image.ts'
import { stage } from '../stage.ts'
import { type HostileServer, hostileServer, ok, reply } from './hostile-server.suite.ts'
import { importImage } from './import-image.ts'
import { importRequestFrom } from './import-request.ts'
import { importService, importStores } from './import-service.suite.ts'

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const sha512 = (bytes: Uint8Array): string => createHash('sha512').update(bytes).digest('hex')
const md5 = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex')

let stores: Awaited<ReturnType<typeof importStores>>
before(async () => {
  stores = await importStores()
})
after(() => stores.close())

/** Half data, half nothing. */
const disk = Buffer.concat([randomBytes(700_000), Buffer.alloc(700_832)])
const sourceOf = (bytes: Buffer): BlockSource => ({
  size: bytes.length,
  read: async (offset, length) => bytes.subarray(offset, offset + length),
  async *extents(offset, length) {
    const step = 65_536
    for (let at = offset; at < offset + length; at += step - (at % step)) {
      const run = Math.min(step - (at % step), offset + length - at)
      yield { offset: at, length: run, kind: bytes.subarray(at, at + run).some((byte) => byte !== 0) ? 'data' : 'hole' }
    }
  },
  close: async () => {},
})
async function qcow2Of(bytes: Buffer): Promise<Buffer> {
  const file = await wrapDisk('qcow2', sourceOf(bytes))
  return Buffer.from(await file.read(0, file.size))
}

async function serving(t: TestContext, body: Uint8Array, options: Omit<Parameters<typeof importService>[1], 'ports'> = {}) {
  const server = await hostileServer((socket) => reply(socket, ok(body, 'etag: "v1"'), body))
  return following(t, server, options)
}
async function following(
  t: TestContext,
  server: HostileServer,
  options: Omit<Parameters<typeof importService>[1], 'ports'> = {},
) {
  const service = await importService(stores, { ports: [server.port], ...options })
  t.after(async () => {
    await service.close()
    await server.close()
  })
  const uri = `http://127.0.0.1:${server.port}/disk.img?signature=secret`
  return { server, service, web: { name: 'web-download', uri } }
}

test('web-download keeps a raw file as it is, and says where it came from', async (t) => {
  const { service, web } = await serving(t, disk)
  const id = await service.image()
  const { image, task } = await service.import(id, { ...web, sha256: sha256(disk) })
  assert.deepEqual(
    [image.status, image.size, image.virtualSize, image.checksum, image.hashValue],
    ['active', disk.length, disk.length, md5(disk), sha512(disk)],
  )
  assert.ok(disk.equals(await service.bytesOf(id)))
  assert.deepEqual([task.status, task.bytes, task.imageId, task.expiresAt !== null], ['success', disk.length, id, true])
  assert.equal(image.notes.originSha512, sha512(disk))
  assert.equal(image.notes.originVerified, 'sha256')
  assert.ok(!JSON.stringify(image.notes).includes('secret'))
  assert.equal(image.notes.importTask, undefined)
  assert.equal(image.notes.reservedBytes, undefined)
})

for (const [name, pack] of [
  ['gzip', gzipSync],
  ['zstd', zstdCompressSync],
] as const) {
  test(`web-download unpacks ${name} on the way, and takes the publisher's digest of the packed file or of what is in it`, async (t) => {
    const packed = pack(disk)
    const { service, web } = await serving(t, packed)
    for (const digest of [sha256(packed), sha256(disk)]) {
      const id = await service.image()
      const { image } = await service.import(id, { ...web, sha256: digest })
      assert.equal(image.status, 'active', String(image.notes.failure))
      assert.ok(disk.equals(await service.bytesOf(id)))
      assert.deepEqual([image.notes.originCompression, image.notes.originSize], [name, packed.length])
      assert.equal(image.notes.originSha256, sha256(packed))
    }
  })
}

test('a qcow2 file is opened and its disk kept as raw, sharing its chunks with the raw image', async (t) => {
  const file = await qcow2Of(disk)
  const { service, web } = await serving(t, file)
  const id = await service.image({ diskFormat: 'qcow2' })
  const { image } = await service.import(id, web)
  assert.deepEqual([image.status, image.diskFormat, image.size, image.virtualSize], ['active', 'raw', disk.length, disk.length])
  assert.ok(disk.equals(await service.bytesOf(id)))
  assert.deepEqual([image.checksum, image.hashValue], [md5(disk), sha512(disk)])
  assert.deepEqual([image.notes.originFormat, image.notes.originSize, image.notes.originMd5], ['qcow2', file.length, md5(file)])
  const { storedBytes } = await service.collected()
  assert.ok(storedBytes < disk.length * 0.6, `${storedBytes}`)
})

async function* staged(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

test('glance-direct opens what was staged, where it can be opened, and checks the digest of what came', async (t) => {
  const { service } = await serving(t, disk)
  const qcow2 = await qcow2Of(disk)
  for (const { diskFormat, file, becomes } of [
    { diskFormat: 'qcow2', file: qcow2, becomes: 'raw' },
    { diskFormat: 'raw', file: disk, becomes: 'raw' },
    { diskFormat: 'ami', file: disk, becomes: 'ami' },
  ]) {
    for (const digest of [{ sha512: sha512(file) }, { sha256: sha256(file) }, {}]) {
      const id = await service.image({ diskFormat })
      await stage(service.ports(), service.caller, id, { bytes: staged(file), declaredBytes: null })
      const { image } = await service.import(id, { name: 'glance-direct', ...digest })
      assert.deepEqual(
        [image.status, image.stagedManifest, image.diskFormat],
        ['active', null, becomes],
        String(image.notes.failure),
      )
      assert.ok(disk.equals(await service.bytesOf(id)))
      assert.equal(image.hashValue, sha512(disk))
    }
  }
})

test('a staged file that is not what it is declared to be is dropped, and the image is queued again', async (t) => {
  const { service } = await serving(t, disk)
  const id = await service.image({ diskFormat: 'qcow2' })
  await stage(service.ports(), service.caller, id, { bytes: staged(disk), declaredBytes: null })
  const { image } = await service.import(id, { name: 'glance-direct' })
  assert.deepEqual([image.status, image.stagedManifest, image.size], ['queued', null, null])
  assert.equal((await service.collected()).manifests, 0)
})

const refused: readonly {
  name: string
  body: () => Uint8Array | Promise<Uint8Array>
  format?: string
  method?: object
  options?: object
  says: RegExp
}[] = [
  {
    name: 'another digest than the publisher names',
    body: () => disk,
    method: { sha512: '0'.repeat(128) },
    says: /sha512 of the file is/,
  },
  { name: 'a file of another format', body: () => disk, format: 'qcow2', says: /qcow2/ },
  { name: 'a qcow2 file declared raw', body: () => qcow2Of(disk), says: /qcow2/ },
  { name: 'xz', body: () => Buffer.from('fd377a585a0000', 'hex'), says: /xz/ },
  { name: 'damaged gzip', body: () => gzipSync(disk).subarray(0, 1000), says: /damaged/ },
  { name: 'more than an image may have', body: () => disk, options: { maxImageBytes: 1_000_000 }, says: /larger than/ },
  {
    name: 'more than comes out of it',
    body: () => gzipSync(Buffer.alloc(2 ** 22)),
    options: { maxImageBytes: 1_000_000 },
    says: /holds more/,
  },
  {
    name: 'more than the quota',
    body: () => randomBytes(2_500_000),
    options: { quota: { image_size_total: 2 } },
    says: /image_size_total/,
  },
]
for (const { name, body, format = 'raw', method = {}, options = {}, says } of refused) {
  test(`an import of ${name} fails with the reason, and leaves nothing behind`, async (t) => {
    const { service, web } = await serving(t, await body(), options)
    const id = await service.image({ diskFormat: format })
    const { image, task } = await service.import(id, { ...web, ...method })
    assert.deepEqual([image.status, image.size, image.manifest, image.diskFormat], ['queued', null, null, format])
    assert.match(String(image.notes.failure), says)
    assert.match(task.message, says)
    assert.deepEqual([task.status, image.notes.failedImport, image.notes.importTask], ['failure', 'imprint', undefined])
    const { chunks, manifests } = await service.collected()
    assert.deepEqual([chunks, manifests], [0, 0])
    const usage = await service.catalog.images.usage('p1')
    assert.deepEqual([usage.totalBytes, usage.uploadingCount], [0, 0])
  })
}

test('an import that failed can be begun again', async (t) => {
  let count = 0
  const server = await hostileServer((socket) => {
    count += 1
    reply(socket, count === 1 ? 'HTTP/1.1 404 N\r\ncontent-length: 0' : ok(disk), count === 1 ? '' : disk)
  })
  const { service, web } = await following(t, server)
  const id = await service.image()
  assert.match(String((await service.import(id, web)).image.notes.failure), /answers 404/)
  const { image } = await service.import(id, web)
  assert.deepEqual([image.status, image.notes.failure], ['active', undefined])
})

test('an import that a stop cuts short goes on at the next start', async (t) => {
  let served = 0
  const asked = Promise.withResolvers<void>()
  const server = await hostileServer((socket) => {
    served += 1
    asked.resolve()
    if (served > 1) reply(socket, ok(disk), disk)
    else socket.write(`${ok(disk)}\r\n\r\n`) // and nothing more
  })
  const { service, web } = await following(t, server)
  const id = await service.image()
  await service.begin(id, web)
  await asked.promise
  await service.stop()
  assert.equal((await service.show(id)).status, 'importing')
  await service.start()
  assert.equal((await service.show(id)).status, 'active')
  assert.ok(disk.equals(await service.bytesOf(id)))
})

test('deleting the image ends its import, and nothing is left', async (t) => {
  const server = await hostileServer((socket) => {
    socket.write(`HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n`)
    const more = setInterval(() => socket.write(randomBytes(10_000)), 20)
    socket.on('close', () => clearInterval(more))
  })
  const { service, web } = await following(t, server, { maxImageBytes: 2 ** 30 })
  const id = await service.image()
  await service.begin(id, web)
  await deleteImage(service.ports(), service.caller, id)
  await service.ports().jobs.idle()
  assert.equal((await service.show(id)).status, 'deleted')
  const { chunks, manifests } = await service.collected()
  assert.deepEqual([chunks, manifests], [0, 0])
})

test('parallel imports never take more than the quota', async (t) => {
  const body = randomBytes(700_000)
  const { service, web } = await serving(t, body, { quota: { image_size_total: 2 } })
  const ids = await Promise.all(Array.from({ length: 6 }, () => service.image()))
  await Promise.allSettled(ids.map((id) => service.begin(id, web)))
  await service.ports().jobs.idle()
  const usage = await service.catalog.images.usage('p1')
  assert.ok(usage.totalBytes <= 2 * 2 ** 20, String(usage.totalBytes))
  const statuses = await Promise.all(ids.map(async (id) => (await service.show(id)).status))
  assert.ok(statuses.includes('active') && statuses.includes('queued'))
})

test('a name that does not exist fails at once, with the reason', async (t) => {
  const { server, service } = await serving(t, disk)
  const id = await service.image()
  const uri = `http://does-not-exist.invalid:${server.port}/disk.img`
  const { image } = await service.import(id, { name: 'web-download', uri })
  assert.deepEqual([image.status, image.notes.failedImport], ['queued', 'imprint'])
  assert.match(String(image.notes.failure), /does-not-exist\.invalid/)
})

test('a copy to all stores is done where there is one, and to that one refused', async (t) => {
  const { service, web } = await serving(t, disk)
  const id = await service.image()
  await service.import(id, web)
  const admin = { ...service.caller, isAdmin: true }
  const copy = (more: object) =>
    importImage(service.ports(), admin, id, importRequestFrom({ method: { name: 'copy-image' }, ...more }))
  assert.equal(await copy({ all_stores: true }), null)
  assert.equal((await service.show(id)).notes.importingToStores, '')
  await assert.rejects(copy({}), { code: 'invalid-request', message: /already/ })
  await assert.rejects(copy({ stores: ['elsewhere'] }), { code: 'conflict', message: /no store "elsewhere"/ })
})

const notBegun: readonly { name: string; fields?: object; method: object; code: string }[] = [
  {
    name: 'without formats',
    fields: { containerFormat: null },
    method: { name: 'web-download', uri: 'http://127.0.0.1/' },
    code: 'conflict',
  },
  {
    name: 'of an image that is active',
    fields: { status: 'active' },
    method: { name: 'web-download', uri: 'http://127.0.0.1/' },
    code: 'conflict',
  },
  { name: 'of an image that is not staged', method: { name: 'glance-direct' }, code: 'conflict' },
  { name: 'to copy an image, by a member', fields: { status: 'active' }, method: { name: 'copy-image' }, code: 'denied' },
  {
    name: 'from the metadata service',
    method: { name: 'web-download', uri: 'http://169.254.169.254/' },
    code: 'invalid-request',
  },
  { name: 'from a file of the host', method: { name: 'web-download', uri: 'file:///etc/passwd' }, code: 'invalid-request' },
  {
    name: "of another project's image",
    fields: { owner: 'p2' },
    method: { name: 'web-download', uri: 'http://127.0.0.1/' },
    code: 'not-found',
  },
]
for (const { name, fields = {}, method, code } of notBegun) {
  test(`an import ${name} is refused, and nothing changes`, async (t) => {
    const { service } = await serving(t, disk)
    const id = await service.image(fields)
    const before = await service.show(id)
    await assert.rejects(service.begin(id, method), { code })
    assert.deepEqual(await service.show(id), before)
  })
}
