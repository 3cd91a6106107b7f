/**
 * Volumes on a store in a folder, without a service around them. As a process, `node volume-life.ts FOLDER`, the life of some volumes, which
 * says what is acknowledged as it goes: a test kills it on its way, and opens what it left.
 */
import { randomUUID } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { GiB } from '../../src/base/units.ts'
import { createExaminer } from '../../src/images/examine/examiner.ts'
import { someone } from '../../src/images/image-world.suite.ts'
import { createDialer } from '../../src/images/import/dialer.ts'
import { DiskLeases } from '../../src/images/leases/disk-leases.ts'
import { getLease } from '../../src/images/leases/lease.ts'
import { LeasedDisks } from '../../src/images/leases/leased-disks.ts'
import { noProtections } from '../../src/images/protections/protections.ts'
import { recordedManifests } from '../../src/images/recorded-manifests.ts'
import { openImages } from '../../src/images/service.ts'
import { ImageSnapshots } from '../../src/images/snapshots/snapshots.ts'
import { VolumeDisks } from '../../src/images/volumes/volume-disks.ts'
import { FsBlobStore } from '../../src/store/blobs/fs/fs-blob-store.ts'
import { SqliteCatalog } from '../../src/store/catalog/sqlite/sqlite-catalog.ts'
import { SqliteChunkIndex } from '../../src/store/chunks/index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from '../../src/store/chunks/open.ts'
import { ScratchDisks } from '../../src/store/scratch/scratch-disks.ts'
import { AttachedVolumes } from '../../src/volumes/attachments/attached-volumes.ts'
import { createVolume } from '../../src/volumes/create-volume.ts'
import { deleteVolume } from '../../src/volumes/delete-volume.ts'
import { extendVolume } from '../../src/volumes/extend-volume.ts'
import { openVolumes } from '../../src/volumes/service.ts'
import { createSnapshot } from '../../src/volumes/snapshots/create-snapshot.ts'
import { deleteSnapshot } from '../../src/volumes/snapshots/delete-snapshot.ts'
import { uploadVolume } from '../../src/volumes/upload-volume.ts'

export const alice = someone('alice')
/** What is written lies here, and is so long. */
export const WRITTEN = { offset: 100_000, length: 300_000 } as const

/** All of it, as a start of the service opens it: what was cut short is taken up. */
export async function openVolumeStore(folder: string) {
  await mkdir(folder, { recursive: true })
  const blobs = await FsBlobStore.open(join(folder, 'store'))
  const catalog = await SqliteCatalog.open({ path: join(folder, 'catalog.db'), journal: blobs })
  const index = await SqliteChunkIndex.open(join(folder, 'index.db'))
  const chunks = await openChunkStore({ blobs, index, workers: 1 })
  const examiner = createExaminer({ workers: 1 })
  const problems: unknown[] = []
  const images = await openImages({
    ...{ catalog, chunks, examiner, limits: { of: async () => -1 }, protections: noProtections, maxImageBytes: 4 * GiB },
    dialer: createDialer({ allowedHosts: [], allowedNetworks: [], allowedPorts: [443] }),
    onProblem: (error) => problems.push(error),
  })
  const scratch = await ScratchDisks.at(join(folder, 'scratch'))
  await scratch.sweep(async (id) => (await getLease(catalog, id)) !== undefined)
  const disks = new LeasedDisks(images.ports, scratch)
  const leases = { catalog, now: Date.now, disks, scratchQuotaBytes: -1 }
  const lent = new DiskLeases({ ...images.ports, ...leases }, '/run/nbd.sock')
  const snapshots = new ImageSnapshots(images.ports)
  const contents = new VolumeDisks({ ...leases, chunks }, lent)
  const { ports, close } = await openVolumes({
    catalog,
    contents,
    images: {
      show: (...asked) => lent.show(...asked),
      showPart: (...asked) => lent.showPart(...asked),
      begin: (...asked) => snapshots.begin(...asked),
      save: (...asked) => snapshots.save(...asked),
      giveUp: (...asked) => snapshots.giveUp(...asked),
    },
    limits: { of: async () => -1 },
    disk: { room: async () => ({ freeBytes: 100 * GiB, takenBytes: 0 }), promised: async () => 0 },
    onProblem: (error) => problems.push(error),
  })
  return {
    ports,
    images: images.ports,
    chunks,
    problems,
    attached: new AttachedVolumes(ports),
    /** The disk, by a new address. */
    async openDisk(id: string) {
      const disk = await disks.open((await contents.address(id)).exportName)
      if (!disk?.writer) throw new Error(`volume ${id} cannot be opened`)
      return { ...disk, writer: disk.writer }
    },
    collect: () => chunks.collect(() => recordedManifests(catalog)),
    async close() {
      await close()
      await images.close()
      await examiner.close()
      await chunks.close()
      await catalog.close()
    },
  }
}
export type VolumeStore = Awaited<ReturnType<typeof openVolumeStore>>

/** Each step, in this order: by its name it says what it made. */
async function live(store: VolumeStore, tell: (step: string, id?: string) => void): Promise<void> {
  const { ports } = store
  const plain = { name: null, description: null, metadata: {} }
  const { id } = await createVolume(ports, alice, { ...plain, sizeGiB: 1, from: { kind: 'blank' } })
  tell('volume', id)
  await ports.tasks.idle()
  const disk = await store.openDisk(id)
  const write = async (byte: number) => {
    await disk.writer.write(WRITTEN.offset, Buffer.alloc(WRITTEN.length, byte))
    await disk.writer.flush()
    tell(`written-${byte}`)
  }
  await write(1)
  const snapshot = await createSnapshot(ports, alice, { ...plain, volumeId: id, mayBeInUse: false })
  tell('snapshot', snapshot.id)
  await write(2)
  await ports.tasks.idle()
  const copy = await createVolume(ports, alice, { ...plain, sizeGiB: null, from: { kind: 'volume', volumeId: id } })
  tell('copy', copy.id)
  await write(3)
  await ports.tasks.idle()
  const { imageId } = await uploadVolume(ports, alice, id, { name: 'image', mayBeInUse: false })
  tell('image', imageId)
  await write(4)
  await ports.tasks.idle()
  const together = [id, copy.id].map((volumeId) => ({ id: randomUUID(), volumeId, name: 'together' }))
  await store.attached.snapshot(alice, together)
  tell('together', together.map((each) => each.id).join(','))
  await disk.release()
  await ports.tasks.idle()
  for (const each of together) await store.attached.deleteSnapshot(each.id)
  tell('together-deleted')
  await ports.tasks.idle()
  await extendVolume(ports, alice, id, 2)
  tell('extended')
  await ports.tasks.idle()
  await store.attached.reserve(alice, id, 'instance')
  await store.attached.prepareRevert(alice, id, 'instance', { kind: 'snapshot', snapshotId: snapshot.id })
  tell('to-revert')
  await store.attached.revert(id, 'instance')
  tell('reverted')
  await store.attached.released(id, 'instance')
  tell('released')
  await deleteSnapshot(ports, alice, snapshot.id)
  tell('snapshot-deleted')
  await ports.tasks.idle()
  await deleteVolume(ports, alice, copy.id)
  tell('copy-deleted')
  await ports.tasks.idle()
}

if (import.meta.main) {
  const store = await openVolumeStore(process.argv[2] ?? '')
  await live(store, (step, id = '') => process.stdout.write(`${step} ${id}\n`))
  await store.close()
}
