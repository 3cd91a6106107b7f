import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { GiB } from '../../base/units.ts'
import type { CatalogWriter } from '../../store/catalog/catalog.ts'
import { authorizeCreate } from '../create-volume.ts'
import { findVolume } from '../find-volume.ts'
import { assertHostHasRoom, assertReserve } from '../host-room.ts'
import type { VolumePorts } from '../ports.ts'
import { assertWithinQuota, type ProjectQuota, quotaOf } from '../quotas.ts'
import type { SnapshotRecord, VolumeRecord } from '../records.ts'
import { snapshots } from '../store.ts'
import { startStoring } from './create-snapshot.ts'

export interface WantedTogether {
  /** Of the snapshot: a UUID. */
  readonly id: string
  readonly volumeId: string
  readonly name: string
}

/** Whether they could be taken now, for who must say so before the moment. @throws ServiceError as `snapshotTogether` */
export async function checkTogether(ports: VolumePorts, caller: Caller, volumeIds: readonly string[]): Promise<void> {
  assertReserve(ports, await ports.disk.room())
  const quotas = await quotasOf(ports, caller, volumeIds)
  await ports.catalog.write(async ({ documents }) => {
    const taken: Record<string, { snapshots: number; gigabytes: number }> = {}
    for (const volumeId of volumeIds) {
      const { projectId, sizeGiB } = await findVolume(documents, caller, volumeId, 'snapshot-in-use')
      const { snapshots, gigabytes } = taken[projectId] ?? { snapshots: 0, gigabytes: 0 }
      taken[projectId] = { snapshots: snapshots + 1, gigabytes: gigabytes + sizeGiB }
      await assertWithinQuota(documents, projectId, quotas.get(projectId)!, taken[projectId], sizeGiB)
    }
  })
}

/**
 * Whether volumes could be made of such snapshots in the caller's project. For a while there are both, and both count.
 * @throws ServiceError `not-found`, `denied`; `over-quota`, `no-space`
 */
export async function checkCopies(ports: VolumePorts, caller: Caller, volumeIds: readonly string[]): Promise<void> {
  const projectId = authorizeCreate(caller)
  const { documents } = ports.catalog
  const [quota, room] = [await quotaOf(ports, projectId), await ports.disk.room()]
  const copied = await Promise.all(volumeIds.map((id) => findVolume(documents, caller, id, 'snapshot-in-use')))
  const own = copied.filter((volume) => volume.projectId === projectId)
  const more = { volumes: copied.length, snapshots: own.length, gigabytes: gigabytesOf(copied) + gigabytesOf(own) }
  await assertWithinQuota(documents, projectId, quota, more, Math.max(0, ...copied.map(({ sizeGiB }) => sizeGiB)))
  await assertHostHasRoom(ports, documents, room, gigabytesOf(copied) * GiB)
}

const gigabytesOf = (volumes: readonly Pick<VolumeRecord, 'sizeGiB'>[]): number =>
  volumes.reduce((sum, { sizeGiB }) => sum + sizeGiB, 0)

/**
 * Snapshots of volumes of which nobody writes to any now, so that they are of one moment: all are taken, or none. When this settles their
 * moment is over; what was written before is stored in the background.
 * @throws ServiceError `not-found`, `denied`, `conflict`; `over-quota`; `no-space`, `unavailable`
 */
export async function snapshotTogether(ports: VolumePorts, caller: Caller, wanted: readonly WantedTogether[]): Promise<void> {
  const quotas = await quotasOf(
    ports,
    caller,
    wanted.map(({ volumeId }) => volumeId),
  )
  const inOrder = [...wanted].sort((a, b) => (a.volumeId < b.volumeId ? -1 : 1)) // who takes several turns takes them in one order
  await inTurns(ports, inOrder, async () => {
    const layers = await Promise.all(inOrder.map(({ volumeId }) => ports.contents.seal(volumeId)))
    failpoint('volume:sealed-together')
    await ports.catalog.write(async (tx) => {
      for (const [index, each] of inOrder.entries()) await record(ports, tx, caller, each, layers[index]!, quotas)
    })
    failpoint('volume:recorded-together')
    for (const { id, volumeId } of inOrder) startStoring(ports, id, volumeId)
  })
}

/** Settles when they are stored. @throws ServiceError `conflict`, saying what became of one that is not; `cancelled` */
export async function storedTogether(
  ports: VolumePorts,
  wanted: readonly Pick<WantedTogether, 'id' | 'volumeId'>[],
  signal: AbortSignal,
): Promise<void> {
  for (const { id, volumeId } of wanted) {
    await Promise.race([ports.tasks.idleAt(volumeId), aborted(signal)])
    const snapshot = await snapshots.get(ports.catalog.documents, id)
    if (snapshot?.status === 'available') continue
    const what = snapshot ? `${snapshot.status}: ${snapshot.fault ?? 'try again'}` : 'gone: it was deleted meanwhile'
    throw new ServiceError('conflict', `snapshot ${id} of volume ${volumeId} is ${what}`, { id, volumeId })
  }
}

async function quotasOf(
  ports: VolumePorts,
  caller: Caller,
  volumeIds: readonly string[],
): Promise<ReadonlyMap<string, ProjectQuota>> {
  const quotas = new Map<string, ProjectQuota>()
  for (const volumeId of volumeIds) {
    const { projectId } = await findVolume(ports.catalog.documents, caller, volumeId, 'snapshot-in-use')
    if (!quotas.has(projectId)) quotas.set(projectId, await quotaOf(ports, projectId))
  }
  return quotas
}

/** As `sealFor`, of all of them at once. */
const inTurns = (ports: VolumePorts, [first, ...others]: readonly WantedTogether[], work: () => Promise<void>): Promise<void> =>
  first ? ports.seals.take(first.volumeId, () => inTurns(ports, others, work)) : work()

async function record(
  { now }: VolumePorts,
  { documents }: CatalogWriter,
  caller: Caller,
  { id, volumeId, name }: WantedTogether,
  layer: number,
  quotas: ReadonlyMap<string, ProjectQuota>,
): Promise<void> {
  const { projectId, sizeGiB } = await findVolume(documents, caller, volumeId, 'snapshot-in-use')
  await assertWithinQuota(documents, projectId, quotas.get(projectId)!, { snapshots: 1, gigabytes: sizeGiB }, sizeGiB)
  const made: SnapshotRecord = {
    ...{ id, volumeId, name, description: null, projectId, userId: caller.userId, sizeGiB, status: 'creating' },
    ...{ fault: null, metadata: {}, layer, createdAt: now(), updatedAt: now() },
  }
  await snapshots.put(documents, made)
}

/** Never settles otherwise. @throws ServiceError `cancelled` */
export const aborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    const cut = () => reject(new ServiceError('cancelled', 'nobody waits for it any more'))
    if (signal.aborted) cut()
    else signal.addEventListener('abort', cut, { once: true })
  })
