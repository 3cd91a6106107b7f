import { randomUUID } from 'node:crypto'
import type { Caller } from '../../base/caller.ts'
import { failpoint } from '../../base/failpoint.ts'
import { GiB } from '../../base/units.ts'
import { faultOf, isForOwner } from '../faults.ts'
import { findVolume } from '../find-volume.ts'
import { assertReserve } from '../host-room.ts'
import { assertMetadata } from '../metadata.ts'
import type { VolumePorts } from '../ports.ts'
import { assertWithinQuota, quotaOf } from '../quotas.ts'
import type { Metadata, SnapshotRecord } from '../records.ts'
import { sealFor } from '../seal.ts'
import { snapshots } from '../store.ts'
import { changeSnapshot } from './change-snapshot.ts'

export interface NewSnapshot {
  readonly volumeId: string
  readonly name: string | null
  readonly description: string | null
  readonly metadata: Metadata
  /** Whether the volume may be attached: then its content is as after a power cut. */
  readonly mayBeInUse: boolean
}

/**
 * `POST /snapshots`: when it is answered, the moment of the snapshot is over, and what is written from then on is not in it. What was
 * written before is stored in the background; then it is `available`.
 * @throws ServiceError `not-found`, `denied`, `conflict`; `over-quota`; `no-space`, `unavailable`, `too-large`
 */
export async function createSnapshot(ports: VolumePorts, caller: Caller, wanted: NewSnapshot): Promise<SnapshotRecord> {
  const { volumeId, mayBeInUse, name, description, metadata } = wanted
  assertMetadata(metadata)
  const verb = mayBeInUse ? 'snapshot-in-use' : 'snapshot'
  const { projectId } = await findVolume(ports.catalog.documents, caller, volumeId, verb)
  const quota = await quotaOf(ports, projectId)
  assertReserve(ports, await ports.disk.room())
  const at = ports.now()
  const snapshot = await ports.catalog.write(async ({ documents }) => {
    const { id: volumeId, sizeGiB } = await findVolume(documents, caller, wanted.volumeId, verb)
    await assertWithinQuota(documents, projectId, quota, { snapshots: 1, gigabytes: sizeGiB }, sizeGiB)
    const made: SnapshotRecord = {
      ...{ id: randomUUID(), volumeId, name, description, projectId, userId: caller.userId, sizeGiB, status: 'creating' },
      ...{ fault: null, metadata, layer: null, createdAt: at, updatedAt: at },
    }
    await snapshots.put(documents, made)
    return made
  })
  failpoint('volume:snapshot-recorded')
  try {
    await sealSnapshot(ports, snapshot)
  } catch (error) {
    await ports.catalog.write(async ({ documents }) => void (await snapshots.delete(documents, snapshot.id)))
    throw error
  }
  return snapshot
}

/** Takes it, and has it stored. @throws ServiceError as `VolumeContents.seal` */
export async function sealSnapshot(ports: VolumePorts, { id, volumeId }: SnapshotRecord): Promise<void> {
  await sealFor(ports, volumeId, async (layer) => {
    await changeSnapshot(ports, id, () => ({ layer }))
    startStoring(ports, id, volumeId)
  })
}

/** `creating` → `available`. Cut short it is left as it stands: the next start takes it up. */
export function startStoring(ports: VolumePorts, id: string, volumeId: string): void {
  ports.tasks.start(volumeId, async (signal) => {
    const snapshot = await changeSnapshot(ports, id, () => null)
    if (snapshot?.status !== 'creating' || snapshot.layer === null) return
    const { layer, projectId, sizeGiB } = snapshot
    try {
      const kept = { id, kind: 'volume-snapshot', bytes: sizeGiB * GiB } as const
      await ports.contents.settle(volumeId, layer, projectId, kept, signal)
    } catch (error) {
      if (signal.aborted) return
      if (!isForOwner(error)) ports.onProblem(error)
      const fault = faultOf(error, 'it could not be stored on this host')
      await changeSnapshot(ports, id, () => ({ status: 'error', fault }))
      return
    }
    failpoint('volume:stored')
    await changeSnapshot(ports, id, () => ({ status: 'available' }))
  })
}
