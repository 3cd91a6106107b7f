import { ServiceError } from '../base/errors.ts'
import { formatBytes, GiB } from '../base/units.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import type { HostDisk, VolumePorts } from './ports.ts'
import { MAX_LISTED, volumes } from './store.ts'

export type Room = Awaited<ReturnType<HostDisk['room']>>

/**
 * Whether the file system holds so many bytes more, when all that were promised to volumes and machines are written. Asked inside
 * `catalog.write`, of a room that was measured before.
 * @throws ServiceError `no-space`, in the words that Cinder's scheduler has for it
 */
export async function assertHostHasRoom(
  { disk, settings }: Pick<VolumePorts, 'disk' | 'settings'>,
  documents: DocumentReader,
  { freeBytes, takenBytes }: Room,
  moreBytes: number,
): Promise<void> {
  const there = await volumes.list(documents)
  const own = there.reduce((sum, { sizeGiB, growingTo }) => sum + Math.max(sizeGiB, growingTo ?? 0), 0) * GiB
  const promised = own + (await disk.promised(documents))
  const most = Math.max(0, freeBytes + takenBytes - settings.reservedBytes) * settings.promiseRatio
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
