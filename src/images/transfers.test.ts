import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { isServiceError, ServiceError } from '../base/errors.ts'
import { MiB } from '../base/units.ts'
import { memorySource } from '../disk/block/memory-source.ts'
import { listAudit } from './audit.ts'
import { deleteImage } from './delete-image.ts'
import { download } from './download.ts'
import { showImage } from './find-image.ts'
import { type ImageWorld, imageWorld, inPieces, sent, someone } from './image-world.suite.ts'
import type { ImagePorts } from './ports.ts'
import { stage } from './stage.ts'
import { upload } from './upload.ts'

let world: ImageWorld
before(async () => {
  world = await imageWorld({ maxImageBytes: 8 * MiB })
})
after(() => world.close())

const mine = someone('mine')
const refused = (code: string, work: () => Promise<unknown>) => assert.rejects(work, { code })
const bytesOf = async (id: string, format?: string): Promise<Buffer> => {
  const file = await download(world.ports, someone('root', 'admin'), id, format === undefined ? undefined : { format })
  assert.ok(file)
  try {
    return await buffer(file.stream(0, file.size!))
  } finally {
    await file.close()
  }
}
/** When what a timer has begun has ended: a write of the catalog waits for the disk, so another one behind it tells. */
const settled = async (): Promise<void> => {
  await new Promise(setImmediate)
  await world.ports.catalog.write(async () => undefined)
}
const md5 = (bytes: Uint8Array) => createHash('md5').update(bytes).digest('hex')

/** A body that goes on when it is told to. */
function held(first: Uint8Array, rest: Uint8Array) {
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  async function* bytes(): AsyncGenerator<Uint8Array> {
    yield first
    begin()
    await released
    yield rest
  }
  return { incoming: { bytes: bytes(), declaredBytes: first.length + rest.length }, begun, release }
}

test('what is uploaded comes out the same, with its digests, and is active', async () => {
  const bytes = randomBytes(3 * MiB + 17)
  const { id } = await world.create(mine)
  await upload(world.ports, mine, id, sent(bytes))
  const image = await showImage(world.ports, mine, id)
  assert.deepEqual([image.status, image.size, image.virtualSize], ['active', bytes.length, bytes.length])
  assert.equal(image.checksum, md5(bytes))
  assert.equal(image.hashValue, createHash('sha512').update(bytes).digest('hex'))
  assert.equal(Buffer.compare(await bytesOf(id), bytes), 0)
})

test('an empty file is a file', async () => {
  const { id } = await world.create(mine)
  await upload(world.ports, mine, id, sent(new Uint8Array(0)))
  const image = await showImage(world.ports, mine, id)
  assert.deepEqual([image.status, image.size, image.checksum], ['active', 0, md5(new Uint8Array(0))])
})

test('of a hundred uploads to one image, one wins, and its bytes are the image', async () => {
  const { id } = await world.create(mine)
  const bodies = Array.from({ length: 100 }, (_, i) => Buffer.alloc(100_000, `${i} `))
  const done = await Promise.allSettled(bodies.map((body) => upload(world.ports, mine, id, sent(body))))
  const winners = done.flatMap((result, i) => (result.status === 'fulfilled' ? [i] : []))
  assert.equal(winners.length, 1)
  for (const result of done) if (result.status === 'rejected') assert.equal((result.reason as ServiceError).code, 'conflict')
  assert.equal(Buffer.compare(await bytesOf(id), bodies[winners[0]!]!), 0)
})

test('an image deleted while its bytes come ends the upload with gone, and leaves nothing', async () => {
  for (const [take, name] of [
    [upload, 'saving'],
    [stage, 'uploading'],
  ] as const) {
    const { id } = await world.create(mine)
    const before = await world.chunks.stats()
    const body = held(randomBytes(MiB), randomBytes(MiB))
    const taking = take(world.ports, mine, id, body.incoming)
    await body.begun
    assert.equal((await showImage(world.ports, mine, id)).status, name)
    await deleteImage(world.ports, mine, id)
    body.release()
    await refused('gone', () => taking)
    await refused('not-found', () => showImage(world.ports, mine, id))
    await world.collect()
    assert.equal((await world.chunks.stats()).chunks, before.chunks)
  }
})

test('bytes that are not what they are declared to be give the image back, with the reason', async () => {
  const { id } = await world.create(mine, { disk_format: 'qcow2' })
  await refused('invalid-image', () => upload(world.ports, mine, id, sent(randomBytes(100_000))))
  const image = await showImage(world.ports, mine, id)
  assert.deepEqual([image.status, image.size, image.manifest], ['queued', null, null])
  assert.match(String(image.notes.failure), /qcow2/)
  assert.equal(image.notes.transferId, undefined)
  const [entry] = await listAudit(world.ports.catalog, { imageId: id }, { limit: 1 })
  assert.deepEqual([entry?.record.action, entry?.record.outcome], ['upload', 'failure'])
})

test('a raw disk that hides a qcow2 header is refused', async () => {
  const disguised = Buffer.alloc(MiB)
  disguised.write('QFI\xfb', 'latin1')
  disguised.writeUInt32BE(3, 4)
  const { id } = await world.create(mine)
  await assert.rejects(upload(world.ports, mine, id, sent(disguised)), (error) => isServiceError(error, 'invalid-image'))
  assert.equal((await showImage(world.ports, mine, id)).status, 'queued')
})

test('after a refused upload the next one succeeds, and the reason is gone', async () => {
  const { id } = await world.create(mine)
  await refused('invalid-request', () =>
    upload(world.ports, mine, id, { bytes: inPieces(randomBytes(1000)), declaredBytes: 2000 }),
  )
  assert.match(String((await showImage(world.ports, mine, id)).notes.failure), /ended after 1000 of 2000/)
  await upload(world.ports, mine, id, sent(randomBytes(1000)))
  const image = await showImage(world.ports, mine, id)
  assert.deepEqual([image.status, image.notes.failure], ['active', undefined])
})

test('a body that breaks off gives the image back', async () => {
  const { id } = await world.create(mine)
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield randomBytes(100_000)
    throw new ServiceError('cancelled', 'the connection broke')
  }
  await refused('cancelled', () => upload(world.ports, mine, id, { bytes: broken(), declaredBytes: 200_000 }))
  assert.equal((await showImage(world.ports, mine, id)).status, 'queued')
})

test('no way in is longer than the longest image: announced or not', async () => {
  for (const take of [upload, stage]) {
    const { id } = await world.create(mine)
    await refused('too-large', () => take(world.ports, mine, id, { bytes: inPieces(new Uint8Array(1)), declaredBytes: 9 * MiB }))
    assert.equal((await showImage(world.ports, mine, id)).version, 1, 'nothing was changed')
    await refused('too-large', () => take(world.ports, mine, id, { bytes: inPieces(randomBytes(9 * MiB)), declaredBytes: null }))
    assert.equal((await showImage(world.ports, mine, id)).status, 'queued')
  }
})

test('formats must be set before the bytes come', async () => {
  const { id } = await world.create(mine, { disk_format: null })
  await assert.rejects(upload(world.ports, mine, id, sent(randomBytes(10))), { code: 'invalid-request', message: /disk_format/ })
  assert.equal((await showImage(world.ports, mine, id)).status, 'queued')
})

test('the quota of bytes is reserved: of ten uploads at once, those that fit succeed', async () => {
  const caller = someone('narrow')
  world.limits.set('narrow', { image_size_total: 3 })
  const images = await Promise.all(Array.from({ length: 10 }, () => world.create(caller)))
  const done = await Promise.allSettled(images.map(({ id }) => upload(world.ports, caller, id, sent(randomBytes(MiB)))))
  assert.equal(done.filter(({ status }) => status === 'fulfilled').length, 3)
  for (const result of done) if (result.status === 'rejected') assert.equal((result.reason as ServiceError).code, 'over-quota')
  const usage = await world.ports.catalog.images.usage('narrow')
  assert.deepEqual([usage.totalBytes, usage.uploadingCount], [3 * MiB, 0])
})

test('a body that does not say its length stops at the quota', async () => {
  const caller = someone('narrow-too')
  world.limits.set('narrow-too', { image_size_total: 2, image_stage_total: 2 })
  for (const take of [upload, stage]) {
    const before = await world.ports.catalog.images.usage('narrow-too')
    const { id } = await world.create(caller)
    await refused('over-quota', () =>
      take(world.ports, caller, id, { bytes: inPieces(randomBytes(3 * MiB)), declaredBytes: null }),
    )
    const after = await world.ports.catalog.images.usage('narrow-too')
    assert.deepEqual({ ...after, imageCount: before.imageCount + 1 }, { ...before, imageCount: after.imageCount })
    await take(world.ports, caller, id, { bytes: inPieces(randomBytes(MiB)), declaredBytes: null })
  }
})

test('no more uploads at once than the quota allows', async () => {
  const caller = someone('patient')
  world.limits.set('patient', { image_count_uploading: 1 })
  const [first, second] = [await world.create(caller), await world.create(caller)]
  const body = held(randomBytes(1000), randomBytes(1000))
  const uploading = upload(world.ports, caller, first.id, body.incoming)
  await body.begun
  await refused('over-quota', () => upload(world.ports, caller, second.id, sent(randomBytes(10))))
  body.release()
  await uploading
  await upload(world.ports, caller, second.id, sent(randomBytes(10)))
})

test('a download goes on to its end although the image is deleted and the store collected', async () => {
  const bytes = randomBytes(4 * MiB)
  const { id } = await world.create(mine)
  await upload(world.ports, mine, id, sent(bytes))
  const file = await download(world.ports, mine, id)
  assert.ok(file)
  const stream = file.stream(0, file.size!)[Symbol.asyncIterator]()
  const parts = [(await stream.next()).value as Uint8Array]
  await deleteImage(world.ports, mine, id)
  await world.collect()
  for (let next = await stream.next(); !next.done; next = await stream.next()) parts.push(next.value)
  await file.close()
  assert.equal(Buffer.compare(Buffer.concat(parts), bytes), 0)
})

test('two images with the same bytes do not depend on each other', async () => {
  const bytes = randomBytes(MiB)
  const [a, b] = [await world.create(mine), await world.create(mine)]
  await upload(world.ports, mine, a.id, sent(bytes))
  await upload(world.ports, mine, b.id, sent(bytes))
  await deleteImage(world.ports, mine, a.id)
  await world.collect()
  assert.equal(Buffer.compare(await bytesOf(b.id), bytes), 0)
})

test('any image of a known format comes out in the other, any range of it, and back again the same', async () => {
  const disk = Buffer.concat([randomBytes(200_000), Buffer.alloc(MiB), randomBytes(65_536 * 3)])
  const padded = Buffer.concat([disk, Buffer.alloc((512 - (disk.length % 512)) % 512)])
  const { id } = await world.create(mine)
  await upload(world.ports, mine, id, sent(padded))
  const file = await bytesOf(id, 'qcow2')
  const part = await download(world.ports, mine, id, { format: 'qcow2' })
  assert.ok(part)
  const middle = await buffer(part.stream(100_001, 99_999))
  await part.close()
  assert.equal(Buffer.compare(middle, file.subarray(100_001, 200_000)), 0)
  assert.notEqual(part.etag, (await download(world.ports, mine, id))?.etag)

  const again = await world.create(mine, { disk_format: 'qcow2' })
  await upload(world.ports, mine, again.id, sent(file))
  assert.equal(Buffer.compare(await bytesOf(again.id, 'raw'), padded), 0)
  await refused('unsupported', () => download(world.ports, mine, id, { format: 'iso' }))
  await refused('unsupported', () => download(world.ports, mine, id, { format: '../../etc/passwd' }))
})

test('a conversion that cannot be planned leaves nothing open', async () => {
  const before = await world.chunks.stats()
  const { id } = await world.create(mine)
  const tooLarge = 2100 * 2 ** 30
  const { manifest, lease } = await world.chunks.ingestDisk(memorySource(tooLarge, [{ offset: 0, bytes: randomBytes(65_536) }]), {
    owner: 'mine',
    digests: [],
  })
  const { version } = (await world.ports.catalog.images.get(id))!
  const changes = { manifest, size: tooLarge, status: 'active' } as const
  await world.ports.catalog.write(({ images }) => images.update(id, version, changes))
  await lease.release()
  await refused('too-large', () => download(world.ports, mine, id, { format: 'vhd' }))
  await deleteImage(world.ports, mine, id)
  await world.collect()
  assert.equal((await world.chunks.stats()).chunks, before.chunks)
})

test('a converted file that is kept open does not keep the chunks of a deleted image', async () => {
  const before = await world.chunks.stats()
  const { id } = await world.create(mine)
  await upload(world.ports, mine, id, sent(randomBytes(MiB)))
  await bytesOf(id, 'qcow2')
  await deleteImage(world.ports, mine, id)
  await world.collect()
  assert.equal((await world.chunks.stats()).chunks, before.chunks)
})

test('who may see but not take, or is nobody, gets no bytes', async () => {
  const { id } = await world.create(mine)
  await upload(world.ports, mine, id, sent(randomBytes(1000)))
  await refused('denied', () => download(world.ports, someone('mine', 'reader'), id))
  await refused('not-found', () => download(world.ports, someone('theirs'), id))
  const { id: empty } = await world.create(mine)
  assert.equal(await download(world.ports, mine, empty), undefined)
})

test('a start gives back what a stop cut in the middle, and leaves what was staged', async () => {
  const [cut, cutStaging, staged] = [await world.create(mine), await world.create(mine), await world.create(mine)]
  await stage(world.ports, mine, staged.id, sent(randomBytes(1000)))
  const bodies = [held(randomBytes(1000), randomBytes(1000)), held(randomBytes(1000), randomBytes(1000))]
  const cutShort = [
    upload(world.ports, mine, cut.id, bodies[0]!.incoming),
    stage(world.ports, mine, cutStaging.id, bodies[1]!.incoming),
  ]
  await Promise.all(bodies.map(({ begun }) => begun))
  await world.reopen()
  for (const { id } of [cut, cutStaging]) {
    const image = await showImage(world.ports, mine, id)
    assert.equal(image.status, 'queued')
    assert.match(String(image.notes.failure), /stopped/)
  }
  assert.equal((await showImage(world.ports, mine, staged.id)).status, 'uploading')
  await upload(world.ports, mine, cut.id, sent(randomBytes(10)))
  for (const { release } of bodies) release()
  for (const late of await Promise.allSettled(cutShort)) {
    // whoever had the image before finds that it is another's now
    assert.equal(late.status === 'rejected' && (late.reason as ServiceError).code, 'gone')
  }
  assert.equal((await showImage(world.ports, mine, cut.id)).size, 10)
})

/** The ports over a catalog that takes no writes while `full()` says so. */
function portsThatFill(full: () => boolean, refusals: { count: number }): ImagePorts {
  const { catalog } = world.ports
  const write: typeof catalog.write = async (work) => {
    if (!full()) return catalog.write(work)
    refusals.count += 1
    throw new ServiceError('no-space', 'the disk is full')
  }
  return {
    ...world.ports,
    catalog: { images: catalog.images, documents: catalog.documents, write, close: () => catalog.close() },
  }
}

for (const [take, name] of [
  [upload, 'saving'],
  [stage, 'uploading'],
] as const) {
  test(`an image in ${name} that cannot be given back at once is given back later, once`, async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    let full = false
    const refusals = { count: 0 }
    const ports = portsThatFill(() => full, refusals)
    const { id } = await world.create(mine)
    async function* bytes(): AsyncGenerator<Uint8Array> {
      yield randomBytes(MiB)
      full = true
      throw new ServiceError('no-space', 'the disk is full')
    }
    await refused('no-space', () => take(ports, mine, id, { bytes: bytes(), declaredBytes: 2 * MiB }))
    const held = await world.ports.catalog.images.get(id)
    assert.deepEqual([held?.status, refusals.count], [name, 1], 'the first try was refused')

    for (const pauseMs of [1000, 2000, 4000]) {
      t.mock.timers.tick(pauseMs - 1)
      const { count } = refusals
      t.mock.timers.tick(1)
      await settled()
      assert.equal(refusals.count, count + 1, `tried again after ${pauseMs} ms`)
    }
    full = false
    t.mock.timers.tick(8000)
    await settled()
    const image = await showImage(world.ports, mine, id)
    assert.deepEqual(
      [image.status, image.size, image.notes.reservedBytes, image.notes.transferId],
      ['queued', null, undefined, undefined],
    )
    assert.equal(image.notes.failure, 'the disk is full')
    t.mock.timers.tick(24 * 3_600_000)
    await settled()
    assert.equal((await showImage(world.ports, mine, id)).version, image.version)

    await upload(world.ports, mine, id, sent(randomBytes(1000)))
    assert.equal((await showImage(world.ports, mine, id)).status, 'active')
  })
}

test('an upload whose record cannot be written is undone later, and its chunks go with the next collection', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  await world.collect()
  const before = await world.chunks.stats()
  let full = false
  const refusals = { count: 0 }
  const ports = portsThatFill(() => full, refusals)
  const { id } = await world.create(mine)
  const fills: typeof ports = {
    ...ports,
    examine: (file, declared) => {
      full = true
      return ports.examine(file, declared)
    },
  }
  await refused('no-space', () => upload(fills, mine, id, sent(randomBytes(MiB))))
  assert.equal(refusals.count, 2, 'neither recorded nor given back')
  full = false
  t.mock.timers.tick(1000)
  while ((await showImage(world.ports, mine, id)).status !== 'queued') await settled()
  await world.collect()
  const { chunks, manifests } = await world.chunks.stats()
  assert.deepEqual({ chunks, manifests }, { chunks: before.chunks, manifests: before.manifests })
})
