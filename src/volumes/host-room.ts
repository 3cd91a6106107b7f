import { ServiceError } from '../base/errors.ts'
import { formatBytes, GiB } from '../base/units.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import type { HostDisk, VolumePorts, VolumeSettings } from './ports.ts'
import type { VolumeRecord } from './records.ts'
import { MAX_LISTED, volumes } from './store.ts'

export type Room = Awaited<ReturnType<HostDisk['room']>>

/** Bytes that may be promised in all, whoever writes them. */
export const promisableOf = (
  { freeBytes, takenBytes }: Room,
  { reservedBytes, promiseRatio }: Pick<VolumeSettings, 'reservedBytes' | 'promiseRatio'>,
): number => Math.max(0, freeBytes + takenBytes - reservedBytes) * promiseRatio

/** As large as they are made, or shall be. */
export const promisedToVolumes = async (documents: DocumentReader): Promise<number> => bytesOf(await volumes.list(documents))

const bytesOf = (there: readonly Pick<VolumeRecord, 'sizeGiB' | 'growingTo'>[]): number =>
  there.reduce((sum, { sizeGiB, growingTo }) => sum + Math.max(sizeGiB, growingTo ?? 0), 0) * GiB

/**
 * Whether the file system holds so many bytes more, when all that were promised to volumes and machines are written. Asked inside
 * `catalog.write`, of a room that was measured before.
 * @throws ServiceError `no-space`, in the words that Cinder's scheduler has for it
 */
export async function assertHostHasRoom(
  { disk, settings }: Pick<VolumePorts, 'disk' | 'settings'>,
  documents: DocumentReader,
  room: Room,
  moreBytes: number,
): Promise<void> {
  const there = await volumes.list(documents)
  const promised = bytesOf(there) + (await disk.promised(documents))
  const most = promisableOf(room, settings)
  if (promised + moreBytes > most) {
    throw new ServiceError(
      'no-space',
      `No valid backend was found: of ${formatBytes(Math.floor(most))} that this host can promise to volumes and instances, ${formatBytes(promised)} are, and ${formatBytes(moreBytes)} more do not fit; delete some, or ask an administrator`,
    )
  }
  if (there.length >= MAX_LISTED)
    throw new ServiceError('no-space', `No valid backend was found: there are ${MAX_LISTED} volumes, which is the most`)
}

/**
 * What is stored for good takes room of its own, as little as is new in it: it is begun while there is more than the reserve.
 * @throws ServiceError `no-space`
 */
export function assertReserve({ settings: { reservedBytes } }: Pick<VolumePorts, 'settings'>, { freeBytes }: Room): void {
  if (freeBytes > reservedBytes) return
  throw new ServiceError(
    'no-space',
    `this host has ${formatBytes(freeBytes)} free, and keeps ${formatBytes(reservedBytes)}: delete something, or ask an administrator`,
  )
}
