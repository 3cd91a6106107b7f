import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { MiB } from '../base/units.ts'
import { openBackupFolder } from '../store/blobs/fs/backup-folder.ts'
import { MemoryBlobStore } from '../store/blobs/memory/memory-blob-store.ts'
import { deleteImage } from './delete-image.ts'
import { download } from './download.ts'
import { imageWorld, sent, someone } from './image-world.suite.ts'
import { StoreJobs } from './store-jobs.ts'
import { upload } from './upload.ts'

/** An image of each project, all of the same bytes. */
async function sameBytes(t: TestContext, ...projects: string[]) {
  const world = await imageWorld()
  t.after(() => world.close())
  const bytes = randomBytes(MiB)
  const ids: string[] = []
  for (const project of projects) {
    const { id } = await world.create(someone(project))
    await upload(world.ports, someone(project), id, sent(bytes))
    ids.push(id)
  }
  const chunk = createHash('sha256').update(bytes.subarray(0, world.chunks.chunkBytes)).digest()
  /** Whether this project is told that the store has the first chunk. */
  const has = async (owner: string): Promise<boolean> => {
    const session = await world.chunks.beginUpload({ owner })
    const [lacking] = await session.lacks(chunk)
    await session.abandon()
    return lacking === 0
  }
  const jobs = new StoreJobs(world.ports, { blobs: new MemoryBlobStore(), open: (folder) => openBackupFolder(folder, '/') })
  return { world, jobs, bytes, ids, has }
}

test('who downloads a deleted image reads to the end, and its project is not taken to have it still', async (t) => {
  const { world, jobs, bytes, ids, has } = await sameBytes(t, 'alice')
  const file = await download(world.ports, someone('alice'), ids[0]!)
  assert.ok(file)
  await deleteImage(world.ports, someone('alice'), ids[0]!)
  for (const job of ['collect', 'collect', 'rebuild', 'collect'] as const) {
    await jobs[job]()
    assert.equal((await world.chunks.stats()).manifests, 0, job)
    assert.equal(await has('alice'), false, job)
  }
  assert.ok(bytes.equals(await buffer(file.stream(0, file.size!))))
  await file.close()
  await jobs.collect()
  assert.equal((await world.chunks.stats()).chunks, 0)
})

for (const [gone, kept] of [
  [0, 1],
  [1, 0],
] as const) {
  test(`a process that ended while it deleted image ${gone} leaves the row of image ${kept}'s project`, async (t) => {
    const projects = ['alice', 'bob']
    const { world, jobs, ids, has } = await sameBytes(t, ...projects)
    await world.ports.catalog.write(async ({ images }) => {
      const { id, version } = (await images.get(ids[gone]!))!
      await images.update(id, version, { status: 'deleted', manifest: null }) // and no `drop`
    })
    await jobs.collect()
    assert.deepEqual([await has(projects[gone]!), await has(projects[kept]!)], [false, true])
    await jobs.rebuild()
    assert.deepEqual([await has(projects[gone]!), await has(projects[kept]!)], [false, true])
  })
}
