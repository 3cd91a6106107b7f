import assert from 'node:assert/strict'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { after, before, test } from 'node:test'
import { ServiceError } from '../base/errors.ts'
import { MiB } from '../base/units.ts'
import type { Catalog } from '../store/catalog/catalog.ts'
import { ChunkUploads } from './add-by-chunks.ts'
import { newImageFrom } from './attributes.ts'
import { createImage } from './create-image.ts'
import { type ImageWorld, imageWorld, someone } from './image-world.suite.ts'
import type { ImagePorts } from './ports.ts'

let world: ImageWorld
before(async () => {
  world = await imageWorld()
})
after(() => world.close())

const mine = someone('mine')
const sha256 = (bytes: Uint8Array) => new Uint8Array(createHash('sha256').update(bytes).digest())
async function* these<T>(...items: T[]): AsyncGenerator<T> {
  yield* items
}

/** An upload whose one chunk was sent, and how to commit it. */
async function sentUpload(uploads: ChunkUploads, image: Record<string, unknown> = {}) {
  const bytes = randomBytes(1000)
  const { id, imageId } = await uploads.begin(mine, {
    fileBytes: bytes.length,
    image: { disk_format: 'raw', container_format: 'bare', ...image },
    source: {},
  })
  const digest = sha256(bytes)
  await uploads.put(mine, id, these({ digest, codec: 'plain' as const, bytes }))
  return { id, imageId, digest, commit: (by = uploads) => by.commit(mine, id, () => these(digest)) }
}

/** The ports over a catalog that does some things in another way. */
function withCatalog(ports: ImagePorts, changes: Partial<Catalog>): ImagePorts {
  const { images, documents } = ports.catalog
  const [write, close] = [ports.catalog.write.bind(ports.catalog), ports.catalog.close.bind(ports.catalog)]
  return { ...ports, catalog: { images, documents, write, close, ...changes } }
}

type Body = Readonly<Record<string, unknown>>
/** What a crash leaves of a session: the document as it stood then. */
async function rewrite(id: string, changes: Body): Promise<void> {
  await world.ports.catalog.write(async ({ documents }) => {
    const found = await documents.get<Body>('upload-session', id)
    await documents.put('upload-session', id, { ...found?.body, ...changes }, { indexes: { open: 'mine' } })
  })
}

test('a crash after the image was recorded, and before the upload was: the commit said again answers the image', async () => {
  const sending = await sentUpload(new ChunkUploads(world.ports))
  const { id } = await sending.commit()
  await rewrite(sending.id, { isCommitted: false })
  const restarted = new ChunkUploads(world.ports)
  assert.equal((await sending.commit(restarted)).id, id)
  assert.equal((await sending.commit(restarted)).id, id)
})

test('an image that is active stays, whatever cannot be noted of its upload afterwards', async () => {
  let refusals = 0
  let active = ''
  const { catalog } = world.ports
  const ports = withCatalog(world.ports, {
    async write(work) {
      if ((await catalog.images.get(active))?.status === 'active' && refusals++ === 0)
        throw new ServiceError('no-space', 'the disk is full')
      return catalog.write(work)
    },
  })
  const sending = await sentUpload(new ChunkUploads(ports))
  active = sending.imageId
  assert.equal((await sending.commit()).status, 'active')
  assert.equal(refusals > 0, true)
  assert.equal((await catalog.images.get(active))?.status, 'active')
  assert.equal((await sending.commit()).id, active)
})

test('the digests of an image are asked for in the transaction that makes it active', async () => {
  const { catalog } = world.ports
  let imageId = ''
  let wereAsked: boolean | undefined
  const ports = withCatalog(world.ports, {
    async write(work) {
      const answer = await catalog.write(work)
      if ((await catalog.images.get(imageId))?.status === 'active')
        wereAsked ??= (await catalog.documents.get('pending-digests', imageId)) !== undefined
      return answer
    },
  })
  const sending = await sentUpload(new ChunkUploads(ports))
  imageId = sending.imageId
  await sending.commit()
  assert.equal(wereAsked, true)
})

test('a crash after the store took the chunks, and before the image was recorded, leaves no image behind', async () => {
  const uploads = new ChunkUploads(world.ports)
  const sending = await sentUpload(uploads)
  await createImage(world.ports, mine, newImageFrom({ id: sending.imageId, disk_format: 'raw', container_format: 'bare' }))
  await rewrite(sending.id, { hasRecord: true })
  await (await world.chunks.resumeUpload(sending.id)).abandon() // as a restart ends the lease that a commit had taken
  const restarted = new ChunkUploads(world.ports)
  await assert.rejects(sending.commit(restarted), { code: 'not-found' })
  assert.equal((await world.ports.catalog.images.get(sending.imageId))?.status, 'deleted')
})

test('an image that has the wanted id already is never taken for the one of the upload', async () => {
  const { id } = await world.create(mine)
  const sending = await sentUpload(new ChunkUploads(world.ports), { id })
  await assert.rejects(sending.commit(), { code: 'conflict' })
  await assert.rejects(sending.commit(), { code: 'conflict' })
  assert.equal((await world.ports.catalog.images.get(id))?.status, 'queued')
})

const wanted = (fileBytes = 1000, image: Record<string, unknown> = {}) => ({
  fileBytes,
  image: { disk_format: 'raw', container_format: 'bare', ...image },
  source: {},
})

/** A place where work waits until the test lets it go on. */
function gate() {
  const [arrived, opened] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const pass = (): Promise<void> => {
    arrived.resolve()
    return opened.promise
  }
  return { pass, arrived: arrived.promise, open: () => opened.resolve() }
}

/** The ports with a pause behind every reading of a document: what it answers is old news when it comes. */
function slowReads(ports: ImagePorts, pause: () => Promise<void>): ImagePorts {
  const { documents } = ports.catalog
  return withCatalog(ports, {
    documents: {
      async get(kind, key) {
        const found = await documents.get<never>(kind, key)
        await pause()
        return found
      },
      list: (kind, query) => documents.list(kind, query),
    },
  })
}
/** The ports with a pause before a look at the bytes: a commit has read its layout by then. */
const slowExamination = (ports: ImagePorts, pause: () => Promise<void>): ImagePorts => ({
  ...ports,
  async examine(file, declared, signal) {
    await pause()
    return ports.examine(file, declared, signal)
  },
})
const sessionOf = async (id: string) => (await world.ports.catalog.documents.get<Body>('upload-session', id))?.body
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

for (const [name, request] of [
  ['a resume', (uploads: ChunkUploads, id: string) => uploads.resume(mine, id, wanted(1000, { name: 'said later' }))],
  ['a question', (uploads: ChunkUploads, id: string) => uploads.lacks(mine, id, new Uint8Array(32))],
] as const) {
  test(`${name} that read the session before a commit, and writes after it, does not undo it`, async () => {
    const uploads = new ChunkUploads(world.ports)
    const sending = await sentUpload(uploads)
    const held = gate()
    const later = () => Date.now() + 2 * HOUR_MS // so long after the last touch that a request is noted
    const beside = new ChunkUploads(slowReads({ ...world.ports, now: later }, held.pass))
    const slow = request(beside, sending.id).catch((error: unknown) => error) // the store has taken the chunks by then
    await held.arrived
    const { id } = await sending.commit()
    held.open()
    await slow
    assert.equal((await sessionOf(sending.id))?.isCommitted, true)
    assert.equal((await sending.commit(new ChunkUploads(world.ports))).id, id, 'also after a restart')
  })
}

test('while a commit runs, a resume changes nothing and giving up is refused; afterwards it forgets the upload only', async () => {
  const held = gate()
  const uploads = new ChunkUploads(slowExamination(world.ports, held.pass))
  const sending = await sentUpload(uploads)
  const committing = sending.commit()
  await held.arrived
  const resumed = await uploads.resume(mine, sending.id, wanted(1000, { id: randomUUID(), name: 'another' }))
  assert.equal(resumed.imageId, sending.imageId)
  await assert.rejects(uploads.abandon(mine, sending.id), { code: 'conflict' })
  held.open()
  const image = await committing
  assert.deepEqual([image.id, image.status, image.name], [sending.imageId, 'active', null])
  await uploads.abandon(mine, sending.id)
  await assert.rejects(sending.commit(), { code: 'not-found' })
  await world.collect()
  const parts = await Array.fromAsync(world.chunks.stream(image.manifest!, 0, 1000))
  assert.equal(Buffer.concat(parts).length, 1000, 'the image keeps its bytes')
})

/** A sender that hangs after what it has said: it neither goes on nor lets itself be ended. */
async function* hanging<T>(items: readonly T[], hangs: () => void): AsyncGenerator<T> {
  yield* items
  hangs()
  await new Promise(() => undefined)
}

for (const [when, said] of [
  ['before its first digest', 0],
  ['after its last digest', 1],
] as const) {
  test(`an upload whose commit hangs in its layout, ${when}, can be given up, and nothing is left`, async () => {
    await world.collect()
    const { chunks } = await world.chunks.stats()
    const uploads = new ChunkUploads(world.ports)
    const sending = await sentUpload(uploads)
    const { promise: hangs, resolve } = Promise.withResolvers<void>()
    const committing = uploads.commit(mine, sending.id, () => hanging([sending.digest].slice(0, said), resolve))
    const refused = assert.rejects(committing, { code: 'not-found', message: /given up/ })
    await hangs
    await Promise.all([uploads.abandon(mine, sending.id), refused])
    assert.equal((await world.ports.catalog.images.get(sending.imageId))?.status, 'deleted')
    assert.equal(await sessionOf(sending.id), undefined)
    await assert.rejects(uploads.abandon(mine, sending.id), { code: 'not-found' })
    await world.collect()
    assert.equal((await world.chunks.stats()).chunks, chunks)
  })
}

test('a commit whose upload is given up before it asks for its layout does not ask', async () => {
  const uploads = new ChunkUploads(world.ports)
  const sending = await sentUpload(uploads)
  let isAsked = false
  const committing = uploads.commit(mine, sending.id, async function* () {
    isAsked = true
    yield sending.digest
  })
  const refused = assert.rejects(committing, { code: 'not-found', message: /given up before/ })
  await Promise.all([uploads.abandon(mine, sending.id), refused])
  assert.equal(isAsked, false)
  assert.equal(await sessionOf(sending.id), undefined)
})

test('giving up what a crash cut short takes the image along that was begun', async () => {
  const { id, imageId } = await sentUpload(new ChunkUploads(world.ports))
  await createImage(world.ports, mine, newImageFrom({ id: imageId, disk_format: 'raw', container_format: 'bare' }))
  await rewrite(id, { hasRecord: true })
  await new ChunkUploads(world.ports).abandon(mine, id)
  assert.equal((await world.ports.catalog.images.get(imageId))?.status, 'deleted')
})

test('a commit that a crash cut short is not turned into one of another image', async () => {
  const uploads = new ChunkUploads(world.ports)
  const sending = await sentUpload(uploads)
  await createImage(world.ports, mine, newImageFrom({ id: sending.imageId, disk_format: 'raw', container_format: 'bare' }))
  await rewrite(sending.id, { hasRecord: true })
  const other = await world.create(mine)
  await assert.rejects(uploads.resume(mine, sending.id, wanted(1000, { id: other.id })), { code: 'conflict' })
  await uploads.resume(mine, sending.id, wanted(1000))
  assert.equal((await sending.commit()).id, sending.imageId)
})

test('uploads that begin at once do not share the last place, nor the last bytes', async () => {
  const crowd = someone('crowd')
  const uploads = new ChunkUploads(world.ports)
  const begin = (bytes = 1) => uploads.begin(crowd, wanted(bytes))
  const outcomes = await Promise.allSettled(Array.from({ length: 70 }, () => begin()))
  const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason.code] : []))
  assert.deepEqual(refused, Array(6).fill('too-many-requests'))

  const tight = someone('tight')
  world.limits.set('tight', { image_size_total: 40 })
  const two = await Promise.allSettled([1, 2].map(() => uploads.begin(tight, wanted(30 * MiB))))
  assert.deepEqual(two.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
})

test('an upload that is being committed takes its room once', async () => {
  const held = gate()
  const uploads = new ChunkUploads(slowExamination(world.ports, held.pass))
  const busy = someone('busy')
  world.limits.set('busy', { image_size_total: 40 })
  const { id } = await uploads.begin(busy, wanted(30 * MiB))
  const committing = uploads.commit(busy, id, (chunks) => these(...Array(chunks).fill(null)))
  await held.arrived
  await assert.rejects(uploads.begin(busy, wanted(10 * MiB + 1)), { code: 'over-quota' })
  const other = await uploads.begin(busy, wanted(10 * MiB))
  await assert.rejects(uploads.begin(busy, wanted(1)), { code: 'over-quota' })
  held.open()
  await committing
  await assert.rejects(uploads.begin(busy, wanted(1)), { code: 'over-quota' })
  await uploads.abandon(busy, other.id)
  await uploads.begin(busy, wanted(10 * MiB))
})

test('a week after the last touch an upload is refused, counts no more, and goes with the next sweep', async () => {
  let clock = Date.now()
  const weekly = someone('weekly')
  const uploads = new ChunkUploads({ ...world.ports, now: () => clock })
  const begun = await Promise.all(Array.from({ length: 64 }, () => uploads.begin(weekly, wanted())))
  const [kept, sent, ...idle] = begun.map(({ id }) => id)
  clock += 6 * DAY_MS
  await uploads.lacks(weekly, kept!, new Uint8Array(32))
  await uploads.put(weekly, sent!, these({ digest: sha256(Buffer.from('x')), codec: 'plain' as const, bytes: Buffer.from('x') }))
  await assert.rejects(uploads.begin(weekly, wanted()), { code: 'too-many-requests' })
  clock += 2 * DAY_MS
  await assert.rejects(uploads.lacks(weekly, idle[0]!, new Uint8Array(32)), { code: 'not-found' })
  await uploads.begin(weekly, wanted())
  assert.ok((await uploads.sweep()) >= 62)
  assert.equal(await sessionOf(idle[0]!), undefined)
  await uploads.lacks(weekly, kept!, new Uint8Array(32))
  assert.ok(await sessionOf(sent!))
})

test('beginning an upload looks at the open ones of its project, however many there are of others or were committed', async () => {
  const uploads = new ChunkUploads(world.ports)
  for (let n = 0; n < 3; n += 1) await (await sentUpload(uploads)).commit()
  let seen = 0
  const { documents } = world.ports.catalog
  const counting = withCatalog(world.ports, {
    documents: {
      get: (kind, key) => documents.get(kind, key),
      async list(kind, query) {
        const found = await documents.list<never>(kind, query)
        seen += found.length
        return found
      },
    },
  })
  await new ChunkUploads(counting).begin(someone('newcomer'), wanted())
  assert.equal(seen, 0)
})
