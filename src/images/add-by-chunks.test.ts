import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import { ChunkUploads } from './add-by-chunks.ts'
import { newImageFrom } from './attributes.ts'
import { createImage } from './create-image.ts'
import { type ImageWorld, imageWorld, someone } from './image-world.suite.ts'

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
  await uploads.put(mine, id, these({ digest: sha256(bytes), codec: 'plain' as const, bytes }))
  return { id, imageId, commit: (by = uploads) => by.commit(mine, id, () => these(sha256(bytes))) }
}

type Body = Readonly<Record<string, unknown>>
/** What a crash leaves of a session: the document as it stood then. */
async function rewrite(id: string, changes: Body): Promise<void> {
  await world.ports.catalog.write(async ({ documents }) => {
    const found = await documents.get<Body>('upload-session', id)
    await documents.put('upload-session', id, { ...found?.body, ...changes }, { indexes: { project: 'mine' } })
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
