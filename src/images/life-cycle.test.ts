import assert from 'node:assert/strict'
import { buffer } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { isServiceError } from '../base/errors.ts'
import { deactivate, reactivate } from './activation.ts'
import { deleteImage } from './delete-image.ts'
import { download } from './download.ts'
import { showImage } from './find-image.ts'
import { type ImageWorld, imageWorld, sent, someone } from './image-world.suite.ts'
import { importImage } from './import/import-image.ts'
import { importRequestFrom } from './import/import-request.ts'
import { listImages } from './list-images.ts'
import { patchImage } from './patch-image.ts'
import { stage } from './stage.ts'
import { upload } from './upload.ts'

/**
 * Random lives of three images under several hands, held to a model. Whatever happens in whatever order: the content of an id
 * that was once active never changes, what is deleted is never served again, its id is never reused, and nothing that the model
 * counts differs from what the quota counts.
 */
let world: ImageWorld
before(async () => {
  world = await imageWorld()
})
after(() => world.close())

type State = 'queued' | 'uploading' | 'active' | 'deactivated' | 'deleted'
interface Model {
  state: State
  content: Buffer | null
}
const owner = someone('life')
const admin = someone('root', 'admin')
const bodyOf = (seed: number): Buffer => Buffer.alloc(30_000 + seed * 7_001, `content ${seed} `)
const importStaged = importRequestFrom({ method: { name: 'glance-direct' } })

const steps = [
  'create',
  'upload',
  'upload-wrong',
  'stage',
  'import',
  'deactivate',
  'reactivate',
  'rename',
  'delete',
  'collect',
  'race',
] as const
const step = fc.record({ what: fc.constantFrom(...steps), image: fc.nat(2), seed: fc.nat(9) })

test('whatever happens to images, they keep to their life', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (lives) => {
      const ids = Array.from({ length: 3 }, () => crypto.randomUUID())
      const models: (Model | null)[] = [null, null, null]
      for (const { what, image, seed } of lives) {
        await live(what, ids[image]!, models, image, seed)
        for (const [at, id] of ids.entries()) await compare(id, models[at] ?? null)
      }
      const { images } = await listImages(world.ports, owner, { limit: 100, ids })
      assert.deepEqual(
        images.map(({ id }) => id).sort(),
        ids.filter((_, at) => models[at] && models[at].state !== 'deleted').sort(),
      )
      for (const [at, id] of ids.entries())
        if (models[at] && models[at].state !== 'deleted') await deleteImage(world.ports, owner, id)
      const { imageCount, totalBytes, stagedBytes, uploadingCount } = await world.ports.catalog.images.usage('life')
      assert.deepEqual(
        { imageCount, totalBytes, stagedBytes, uploadingCount },
        { imageCount: 0, totalBytes: 0, stagedBytes: 0, uploadingCount: 0 },
      )
    }),
    { numRuns: 25 },
  )
  await world.collect()
  assert.equal((await world.chunks.stats()).chunks, 0, 'nothing is left behind')
  assert.deepEqual(world.problems, [])
})

async function live(what: (typeof steps)[number], id: string, models: (Model | null)[], at: number, seed: number): Promise<void> {
  const model = models[at] ?? null
  const succeeds = async (allowed: boolean, work: () => Promise<unknown>): Promise<boolean> => {
    try {
      await work()
      assert.ok(allowed, `${what} should have been refused in ${model?.state}`)
      return true
    } catch (error) {
      if (!isServiceError(error)) throw error
      assert.ok(!allowed, `${what} in ${model?.state}: ${error.message}`)
      return false
    }
  }
  const inState = (...states: State[]) => model !== null && states.includes(model.state)
  const { ports } = world
  switch (what) {
    case 'create':
      if (await succeeds(model === null, () => world.create(owner, { id }))) models[at] = { state: 'queued', content: null }
      return
    case 'upload':
      if (await succeeds(inState('queued'), () => upload(ports, owner, id, sent(bodyOf(seed)))))
        become(model, 'active', bodyOf(seed))
      return
    case 'upload-wrong':
      await succeeds(false, () => upload(ports, owner, id, { ...sent(bodyOf(seed)), declaredBytes: 1 }))
      return
    case 'stage':
      if (await succeeds(inState('queued'), () => stage(ports, owner, id, sent(bodyOf(seed)))))
        become(model, 'uploading', bodyOf(seed))
      return
    case 'import':
      if (await succeeds(inState('uploading'), () => importImage(ports, owner, id, importStaged))) {
        await ports.jobs.idle()
        become(model, 'active', model!.content)
      }
      return
    case 'deactivate':
      if (await succeeds(inState('active', 'deactivated'), () => deactivate(ports, owner, id)))
        become(model, 'deactivated', model!.content)
      return
    case 'reactivate':
      if (await succeeds(inState('active', 'deactivated'), () => reactivate(ports, owner, id)))
        become(model, 'active', model!.content)
      return
    case 'rename':
      await succeeds(model !== null && model.state !== 'deleted', () =>
        patchImage(ports, owner, id, [{ op: 'replace', name: 'name', value: `n${seed}` }]),
      )
      return
    case 'delete':
      if (await succeeds(model !== null && model.state !== 'deleted', () => deleteImage(ports, owner, id)))
        become(model, 'deleted', model!.content)
      return
    case 'collect':
      await world.collect()
      return
    case 'race': {
      if (!inState('queued')) return
      const bodies = [bodyOf(seed), bodyOf(seed + 1)]
      const done = await Promise.allSettled(bodies.map((body) => upload(ports, owner, id, sent(body))))
      const winners = done.flatMap(({ status }, i) => (status === 'fulfilled' ? [i] : []))
      assert.equal(winners.length, 1)
      become(model, 'active', bodies[winners[0]!]!)
    }
  }
}

function become(model: Model | null, state: State, content: Buffer | null): void {
  assert.ok(model)
  model.state = state
  model.content = content
}

async function compare(id: string, model: Model | null): Promise<void> {
  const image = await showImage(world.ports, owner, id).catch((error: unknown) => {
    assert.ok(isServiceError(error, 'not-found'), String(error))
    return null
  })
  if (model === null || model.state === 'deleted') {
    assert.equal(image, null)
    await assert.rejects(download(world.ports, admin, id), { code: 'not-found' })
    return
  }
  assert.equal(image?.status, model.state)
  const file = await download(world.ports, admin, id)
  if (model.state !== 'active' && model.state !== 'deactivated') {
    assert.equal(file, undefined)
    return
  }
  assert.ok(file && model.content)
  assert.equal(Buffer.compare(await buffer(file.stream(0, file.size!)), model.content), 0)
  await file.close()
}
