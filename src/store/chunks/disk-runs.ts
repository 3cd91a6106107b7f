import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import type { ByteRange, KnownDisk } from './chunk-store.ts'

/**
 * How a part of a disk gets into its manifest: `read` and cut into chunks; `zeros`, unread; `known`, as the manifest has it that the disk
 * is over. Whole chunks, but for the end of the disk.
 */
export interface DiskRun extends ByteRange {
  readonly kind: 'read' | 'zeros' | 'known'
}

/**
 * The disk by its extents, front to back: what is no data is zeros.
 * @param unitBytes whole units are read around data; a multiple of the chunk size
 * @param from a multiple of the chunk size, as is `to`, unless it is the end of the disk
 */
export async function* dataRuns(disk: BlockSource, unitBytes: number, from = 0, to = disk.size): AsyncGenerator<DiskRun> {
  let done = from
  for await (const { offset, length, kind } of disk.extents(from, to - from)) {
    if (kind !== 'data') continue
    const first = Math.max(done, floorTo(offset, unitBytes))
    const end = Math.min(to, ceilTo(offset + length, unitBytes))
    if (first >= end) continue
    if (first > done) yield { offset: done, length: first - done, kind: 'zeros' }
    yield { offset: first, length: end - first, kind: 'read' }
    done = end
  }
  if (to > done) yield { offset: done, length: to - done, kind: 'zeros' }
}

/**
 * The disk by what differs from the file that it is over.
 * @param fileBytes of that file
 * @throws ServiceError `invalid-request`
 */
export async function* changedRuns(
  disk: BlockSource,
  { changed }: KnownDisk,
  fileBytes: number,
  chunkBytes: number,
): AsyncGenerator<DiskRun> {
  // the last chunk of a file may be short: of a file of another size than the disk it is not the disk's
  const knownBytes = disk.size === fileBytes ? fileBytes : floorTo(Math.min(disk.size, fileBytes), chunkBytes)
  let done = 0
  for await (const { offset, length } of wholeChunks(changed, disk.size, chunkBytes)) {
    const end = Math.min(knownBytes, offset + length)
    if (offset >= end) continue // behind the end of the file, where all is asked of the disk
    if (offset > done) yield { offset: done, length: offset - done, kind: 'known' }
    yield* dataRuns(disk, chunkBytes, offset, end)
    done = end
  }
  if (knownBytes > done) yield { offset: done, length: knownBytes - done, kind: 'known' }
  if (disk.size > knownBytes) yield* dataRuns(disk, chunkBytes, knownBytes)
}

/** The chunks that ranges touch, those that lie side by side as one range. The last may go beyond the disk. */
async function* wholeChunks(ranges: KnownDisk['changed'], diskBytes: number, chunkBytes: number): AsyncGenerator<ByteRange> {
  let before = 0
  let [first, end] = [0, 0]
  for await (const { offset, length } of ranges) {
    assertNext(offset, length, before, diskBytes)
    if (length === 0) continue
    before = offset + length
    const from = floorTo(offset, chunkBytes)
    if (from > end) {
      if (end > first) yield { offset: first, length: end - first }
      first = from
    }
    end = ceilTo(before, chunkBytes)
  }
  if (end > first) yield { offset: first, length: end - first }
}

function assertNext(offset: number, length: number, before: number, diskBytes: number): void {
  const isNext = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= before && length >= 0
  if (isNext && length <= diskBytes - offset) return
  throw new ServiceError('invalid-request', 'the changed ranges of a disk must ascend, not overlap, and lie inside it', {
    offset,
    length,
    before,
    diskBytes,
  })
}

const floorTo = (bytes: number, unitBytes: number): number => Math.floor(bytes / unitBytes) * unitBytes
const ceilTo = (bytes: number, unitBytes: number): number => Math.ceil(bytes / unitBytes) * unitBytes
