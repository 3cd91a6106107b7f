import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Caller } from '../base/caller.ts'
import { GiB } from '../base/units.ts'
import type { BlockWriter } from '../disk/block/block-writer.ts'
import { imageWorld, sent } from '../images/image-world.suite.ts'
import { DiskLeases } from '../images/leases/disk-leases.ts'
import { getLease } from '../images/leases/lease.ts'
import { LeasedDisks } from '../images/leases/leased-disks.ts'
import { ImageSnapshots } from '../images/snapshots/snapshots.ts'
import { upload } from '../images/upload.ts'
import { VolumeDisks } from '../images/volumes/volume-disks.ts'
import { ScratchDisks } from '../store/scratch/scratch-disks.ts'
import { createVolume, type NewVolume } from './create-volume.ts'
import type { QuotaName, VolumeContents, VolumeSettings } from './ports.ts'
import type { SnapshotRecord, VolumeRecord } from './records.ts'
import { openVolumes } from './service.ts'
import { createSnapshot } from './snapshots/create-snapshot.ts'
import { snapshots, volumes } from './store.ts'

export { someone } from '../images/image-world.suite.ts'

export interface VolumeWorldOptions {
  readonly quota?: Partial<Record<QuotaName, number>>
  readonly settings?: Partial<VolumeSettings>
}

/** The volumes of a service over a real store, in memory, and a real folder for what is written: for tests. */
export async function volumeWorld(options: VolumeWorldOptions = {}) {
  const images = await imageWorld({ maxImageBytes: 4 * GiB })
  const folder = mkdtempSync(join(tmpdir(), 'imprint-volumes-'))
  const { catalog, now } = images.ports
  const problems: unknown[] = []
  const host = { freeBytes: 100 * GiB, takenBytes: 0, promisedBytes: 0 }
  /** What a start of the service makes of what there is. @param between a test lets calls fail, or never end, there */
  const open = async (between: (real: VolumeContents) => VolumeContents = (real) => real) => {
    const scratch = await ScratchDisks.at(folder)
    await scratch.sweep(async (id) => (await getLease(catalog, id)) !== undefined)
    const disks = new LeasedDisks(images.ports, scratch)
    const leases = { catalog, now, disks, scratchQuotaBytes: -1 }
    const lent = new DiskLeases({ ...images.ports, ...leases }, '/run/imprint/nbd.sock')
    const contents = new VolumeDisks({ ...leases, chunks: images.chunks }, lent)
    const imageSnapshots = new ImageSnapshots(images.ports)
    const service = await openVolumes({
      catalog,
      contents: between(contents),
      images: {
        show: (...asked) => lent.show(...asked),
        showPart: (...asked) => lent.showPart(...asked),
        begin: (...asked) => imageSnapshots.begin(...asked),
        save: (...asked) => imageSnapshots.save(...asked),
        giveUp: (...asked) => imageSnapshots.giveUp(...asked),
      },
      limits: { of: async (_, name) => options.quota?.[name as QuotaName] ?? -1 },
      disk: { room: async () => host, promised: async () => host.promisedBytes },
      settings: { hostName: 'host', ...options.settings },
      onProblem: (error) => problems.push(error),
    })
    return { ...service, disks, contents }
  }
  let service = await open()
  const plain: NewVolume = { name: 'data', description: null, sizeGiB: 1, from: { kind: 'blank' }, metadata: {} }
  const idle = () => service.ports.tasks.idle()
  const showVolume = (id: string) => volumes.get(catalog.documents, id)
  const showSnapshot = (id: string) => snapshots.get(catalog.documents, id)
  /** The disk as a machine has it open, by a new address. */
  const openDisk = async (id: string) => {
    const { exportName } = await service.contents.address(id)
    const disk = await service.disks.open(exportName)
    if (!disk?.writer) throw new Error(`volume ${id} cannot be opened`)
    return { ...disk, writer: disk.writer as BlockWriter }
  }
  return {
    images,
    catalog,
    problems,
    host,
    idle,
    showVolume,
    showSnapshot,
    openDisk,
    get ports() {
      return service.ports
    },
    get contents() {
      return service.contents
    },
    /** An image of the bytes. */
    async addImage(caller: Caller, bytes: Uint8Array, members: Record<string, unknown> = {}): Promise<string> {
      const { id } = await images.create(caller, members)
      await upload(images.ports, caller, id, sent(bytes))
      return id
    },
    create: (caller: Caller, wanted: Partial<NewVolume> = {}) => createVolume(service.ports, caller, { ...plain, ...wanted }),
    /** One that is available. */
    async createOne(caller: Caller, wanted: Partial<NewVolume> = {}): Promise<VolumeRecord> {
      const { id } = await createVolume(service.ports, caller, { ...plain, ...wanted })
      await idle()
      return (await showVolume(id))!
    },
    /** One that is available. */
    async snapshotOne(caller: Caller, volumeId: string, mayBeInUse = false): Promise<SnapshotRecord> {
      const wanted = { volumeId, name: 's', description: null, metadata: {}, mayBeInUse }
      const { id } = await createSnapshot(service.ports, caller, wanted)
      await idle()
      return (await showSnapshot(id))!
    },
    async write(id: string, offset: number, bytes: Uint8Array): Promise<void> {
      const disk = await openDisk(id)
      await disk.writer.write(offset, bytes)
      await disk.release()
    },
    async read(id: string, offset: number, length: number): Promise<Buffer> {
      const disk = await openDisk(id)
      const bytes = Buffer.from(await disk.disk.read(offset, length))
      await disk.release()
      return bytes
    },
    /** Files of what is written to a volume. */
    files: (id: string) => readdirSync(join(folder, id)).sort(),
    /** Volumes and exports that have a folder. */
    folders: () => readdirSync(folder).sort(),
    /** As a start after a kill would: what went on before goes no further. */
    async reopen(between?: Parameters<typeof open>[0]): Promise<void> {
      await service.close()
      service = await open(between)
    },
    async close(): Promise<void> {
      await service.close()
      await images.close()
      rmSync(folder, { recursive: true })
    },
  }
}
export type VolumeWorld = Awaited<ReturnType<typeof volumeWorld>>
