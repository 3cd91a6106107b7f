/** The one file system on which volumes, exports and machines write: how much of it each may be promised beside the others. */
import { statfs } from 'node:fs/promises'
import type { HostDisk as SeenByExports } from './images/leases/exports.ts'
import { allLeases } from './images/leases/lease.ts'
import { promisedToInstances } from './instances/launch/host-room.ts'
import type { Machines, HostDisk as SeenByInstances } from './instances/ports.ts'
import type { Catalog, DocumentReader } from './store/catalog/catalog.ts'
import type { ScratchDisks } from './store/scratch/scratch-disks.ts'
import { promisableOf, promisedToVolumes } from './volumes/host-room.ts'
import type { HostDisk as SeenByVolumes, VolumeSettings } from './volumes/ports.ts'

interface HostOfDisks {
  /** On that file system. */
  readonly folder: string
  readonly images: Catalog['images']
  readonly scratch: ScratchDisks
  readonly hypervisor: Machines
  /** Bytes of it that are kept as long as nothing else needs them. */
  readonly idleBytes: () => number
  readonly promises: Pick<VolumeSettings, 'reservedBytes' | 'promiseRatio'>
}

export interface HostRoom {
  readonly forExports: SeenByExports
  readonly forVolumes: SeenByVolumes
  readonly forInstances: SeenByInstances
}

export function hostRoom(host: HostOfDisks): HostRoom {
  const { folder, images, scratch, hypervisor, idleBytes, promises } = host
  const space = async () => {
    const { totalBytes, freeBytes } = await spaceAt(folder)
    return { totalBytes, freeBytes: freeBytes + idleBytes() }
  }
  const room = async () => {
    const machines = await hypervisor.list().catch(() => []) // where none can run, none has taken anything
    const takenByMachines = machines.reduce((sum, { diskBytes }) => sum + diskBytes, 0)
    const { freeBytes } = await space()
    return { freeBytes, takenBytes: (await scratch.takenBytes()) + takenByMachines }
  }
  const promisedToOthers = async (documents: DocumentReader) => {
    let bytes = await promisedToInstances(documents)
    for await (const { body } of allLeases({ images, documents }, 'export')) if (body.isWritable) bytes += body.diskBytes
    return bytes
  }
  const inAll = {
    promisable: async () => promisableOf(await room(), promises),
    promised: async (documents: DocumentReader) => (await promisedToOthers(documents)) + (await promisedToVolumes(documents)),
  }
  return {
    forExports: inAll,
    forVolumes: { room, promised: promisedToOthers },
    forInstances: { ...inAll, space },
  }
}

export async function spaceAt(folder: string): Promise<{ readonly totalBytes: number; readonly freeBytes: number }> {
  const { bsize, blocks, bavail } = await statfs(folder)
  return { totalBytes: bsize * blocks, freeBytes: bsize * bavail }
}
