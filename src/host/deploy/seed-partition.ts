import { createHash } from 'node:crypto'
import { ServiceError } from '../../base/errors.ts'
import type { Piece } from '../../disk/block/memory-source.ts'
import { gptWithPartition, readGpt, roomAtEnd } from '../../disk/guest/partitions/gpt.ts'
import { seedDisc } from '../../instances/seed/seed-disc.ts'
import type { ImageDisk } from './image-disk.ts'

/** "Linux filesystem data", which every tool takes. */
const LINUX_DATA = '0fc63daf-8483-4772-8e79-3d69d8477de4'
const NAME = 'cidata'
/** ISO 9660 has blocks of 2,048 bytes, and a kernel mounts it from no disk with larger ones. */
const MOST_SECTOR_BYTES = 2048

/**
 * What cloud-init shall find on the disk when the system starts, as a disc in a small partition at the end: its data source NoCloud goes by the
 * label of the file system. The same image and data give the same bytes, so a run that was cut off is gone on with.
 * @param imageId the data's instance id is made of it and of the data: other data is another instance, for which cloud-init runs anew
 * @throws ServiceError `unsupported` for a disk without a GPT, or with large sectors; `too-large` where partitions leave no room
 */
export async function seedPatches(
  image: ImageDisk,
  diskBytes: number,
  imageId: string,
  userData: Uint8Array,
): Promise<readonly Piece[]> {
  const gpt = await readGpt(image)
  if (!gpt)
    throw new ServiceError(
      'unsupported',
      'the image has no GUID partition table (GPT), in which a partition for --user-data could be made',
    )
  if (gpt.sectorBytes > MOST_SECTOR_BYTES) {
    throw new ServiceError(
      'unsupported',
      `the disk has sectors of ${gpt.sectorBytes} bytes, from which no kernel reads the disc of --user-data`,
    )
  }
  const digest = createHash('sha256').update(imageId).update('\0').update(userData).digest('hex')
  const metaData = JSON.stringify({ 'instance-id': `imprint-${digest.slice(0, 32)}` })
  const disc = seedDisc({ metaData, userData, networkConfig: null, vendorData: null })
  const room = roomAtEnd(gpt, diskBytes, disc.length)
  if (!room) {
    throw new ServiceError(
      'too-large',
      'the partitions of the image leave no room at the end of the disk for --user-data: take a larger disk',
    )
  }
  const pieces = gptWithPartition(gpt, diskBytes, { type: LINUX_DATA, id: idFrom(digest), name: NAME, ...room })
  if (!pieces) throw new ServiceError('unsupported', 'the partition table of the image has no free entry for --user-data')
  return [...pieces, { offset: room.firstLba * gpt.sectorBytes, bytes: disc }].sort((a, b) => a.offset - b.offset)
}

/** A UUID of version 8: RFC 9562. */
const idFrom = (hex: string): string =>
  [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, `8${hex.slice(17, 20)}`, hex.slice(20, 32)].join('-')
