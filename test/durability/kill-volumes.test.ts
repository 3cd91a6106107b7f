/**
 * kill -9 at every step of the life of volumes: what was acknowledged is there when they are opened again, what was begun is brought to its
 * end, and when all is deleted nothing is left.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { type Failpoint, failpoints } from '../../src/base/failpoint.ts'
import { deleteImage } from '../../src/images/delete-image.ts'
import { createVolume } from '../../src/volumes/create-volume.ts'
import { deleteVolume } from '../../src/volumes/delete-volume.ts'
import { snapshots, volumes } from '../../src/volumes/store.ts'
import { folderInMemory, removeFolder } from './mortal-service.ts'
import { alice, openVolumeStore, type VolumeStore, WRITTEN } from './volume-life.ts'

const isOfVolumes = (name: Failpoint) => /^(volume:|scratch:(layer-made|sealed)$)/.test(name)
/** Steps that come up several times in that life: each is tried at these passings. */
const passings: Partial<Readonly<Record<Failpoint, readonly number[]>>> = {
  'scratch:layer-made': [1, 2, 3],
  'scratch:sealed': [1, 2, 3],
  'volume:recorded': [1, 2],
  'volume:sealed': [1, 2, 3],
  'volume:made': [1, 2],
  'volume:ingested': [1, 2, 3],
  'volume:kept': [1, 2, 3],
}
const deaths = failpoints.filter(isOfVolumes).flatMap((name) => (passings[name] ?? [1]).map((nth) => `${name}:${nth}`))

for (const death of deaths) {
  test(`killed at ${death}, volumes have what was acknowledged, and leave nothing when they go`, async () => {
    const folder = await folderInMemory('volumes')
    const data = join(folder, 'data')
    try {
      const told = await lifeUntil(data, death)
      const store = await openVolumeStore(data)
      await store.ports.tasks.idle()
      await store.images.jobs.idle()
      assert.deepEqual(store.problems, [])
      await assertKept(store, told)
      await assertNothingIsLeft(store, data)
      await store.close()
    } finally {
      await removeFolder(folder)
    }
  })
}

test('every step of volumes is tried, and passed', () => {
  assert.deepEqual([...new Set(deaths.map((death) => death.replace(/:\d+$/, '')))], failpoints.filter(isOfVolumes))
})

/** @returns what was acknowledged: the id of what it made, by step */
async function lifeUntil(data: string, death: string): Promise<ReadonlyMap<string, string>> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'volume-life.ts'), data], {
    env: { ...process.env, IMPRINT_FAILPOINT: death, NODE_TEST_CONTEXT: undefined },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [lines, [, signal]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  assert.equal(signal, 'SIGKILL', `nothing passes ${death}: ${lines}`)
  const told = lines.split('\n').map((line) => line.split(' ') as [string, string])
  return new Map(told.filter(([step]) => step !== ''))
}

async function assertKept(store: VolumeStore, told: ReadonlyMap<string, string>): Promise<void> {
  const { documents } = store.ports.catalog
  for (const { id, status, attachment } of await volumes.list(documents)) {
    assert.ok(status === 'available' || (status === 'attaching' && attachment), `volume ${id} is ${status}`)
  }
  for (const { id, status } of await snapshots.list(documents)) assert.equal(status, 'available', `snapshot ${id}`)
  const id = told.get('volume')
  if (!id) return
  const last = [4, 3, 2, 1].find((byte) => told.has(`written-${byte}`)) ?? 0
  const atLast = told.has('reverted') ? [1] : told.has('to-revert') ? [1, 4] : [4]
  const allowed = last === 4 ? atLast : [last, last + 1] // what was being written may be there
  assertHolds(await contentOf(store, id), allowed)
  await assertMade(store, told, 'snapshot', [1], (snapshotId) => madeOf(store, snapshotId))
  await assertMade(store, told, 'copy', [2], (copyId) => contentOf(store, copyId))
  const together = (await snapshots.list(documents)).filter(({ name }) => name === 'together')
  if (told.has('together') && !told.has('together-deleted')) assert.ok(together.length > 0)
  else assert.ok([0, 2].includes(together.length), 'all of them, or none')
  for (const snapshot of together.filter(({ volumeId }) => volumeId === id)) assertHolds(await madeOf(store, snapshot.id), [4])
  const imageId = told.get('image')
  if (imageId) {
    const image = await store.ports.catalog.images.get(imageId)
    assert.equal(image?.status, 'active')
    const bytes = store.chunks.stream(image.manifest!, WRITTEN.offset, WRITTEN.length)
    assertHolds(Buffer.concat(await Array.fromAsync(bytes)), [3])
  }
  if (told.has('extended')) assert.equal((await volumes.get(documents, id))?.sizeGiB, 2)
}

/** It is there with its content, unless its deletion was begun. */
async function assertMade(
  store: VolumeStore,
  told: ReadonlyMap<string, string>,
  what: 'snapshot' | 'copy',
  bytes: readonly number[],
  read: (id: string) => Promise<Buffer>,
): Promise<void> {
  const id = told.get(what)
  if (!id) return
  const { documents } = store.ports.catalog
  const found = await (what === 'copy' ? volumes.get(documents, id) : snapshots.get(documents, id))
  if (!found) assert.ok(told.has('released'), `the ${what} is gone`)
  else if (told.has(`${what}-deleted`)) assert.fail(`the ${what} is there, and was deleted`)
  else assertHolds(await read(id), bytes)
}

/** What a volume has that is made of a snapshot. */
async function madeOf(store: VolumeStore, snapshotId: string): Promise<Buffer> {
  const plain = { name: null, description: null, metadata: {}, sizeGiB: null }
  const made = await createVolume(store.ports, alice, { ...plain, from: { kind: 'snapshot', snapshotId } })
  await store.ports.tasks.idle()
  return contentOf(store, made.id)
}

async function contentOf(store: VolumeStore, id: string): Promise<Buffer> {
  const disk = await store.openDisk(id)
  const bytes = Buffer.from(await disk.disk.read(WRITTEN.offset, WRITTEN.length))
  await disk.release()
  return bytes
}
function assertHolds(bytes: Buffer, allowed: readonly number[]): void {
  const other = bytes.find((byte) => !allowed.includes(byte))
  assert.equal(other, undefined, `there is ${other}, and only ${allowed} was written`)
}

async function assertNothingIsLeft(store: VolumeStore, data: string): Promise<void> {
  const { documents, images } = store.ports.catalog
  for (const { id, attachment } of await volumes.list(documents)) {
    if (attachment) await store.attached.released(id, attachment.instanceId)
    await deleteVolume(store.ports, alice, id, { cascade: true })
  }
  await store.ports.tasks.idle()
  for (const { id } of await images.list({ viewer: { all: true }, limit: 10 })) await deleteImage(store.images, alice, id)
  await store.collect()
  const { chunks, manifests } = await store.chunks.stats()
  assert.deepEqual([chunks, manifests, readdirSync(join(data, 'scratch'))], [0, 0, []])
}
