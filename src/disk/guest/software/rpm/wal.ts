import { ServiceError } from '../../../../base/errors.ts'
import { MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'

/** Pages that SQLite wrote beside its database and has not put into it yet. Source: SQLite, "Database File Format", section 4. */
export interface WriteAheadLog {
  readonly pageBytes: number
  /** Of the database after the last commit. */
  readonly pages: number
  /** As it is after the last commit; undefined where the database has it. */
  read(page: number): Promise<Uint8Array> | undefined
}

const MAGIC = 0x377f0682 // and one more where checksums are of big-endian words
const VERSION = 3007000
const HEAD_BYTES = 32
const FRAME_HEAD_BYTES = 24
const MAX_BYTES = 256 * MiB // SQLite itself begins anew at 1,000 pages
const MAX_FRAMES = 2 ** 18

/**
 * What of a log counts: all frames up to the last commit whose salts and checksums are right, as SQLite itself takes them.
 * @returns undefined where that is nothing
 * @throws ServiceError `too-large` beyond 256 MiB
 */
export async function readWal(log: BlockSource): Promise<WriteAheadLog | undefined> {
  if (log.size < HEAD_BYTES) return undefined
  if (log.size > MAX_BYTES)
    throw new ServiceError('too-large', `the log of the rpm database has ${log.size} bytes, more than ${MAX_BYTES}`)
  const bytes = await log.read(0, HEAD_BYTES)
  const head = viewOf(bytes)
  const magic = head.getUint32(0)
  const pageBytes = head.getUint32(8)
  const isRight = (magic === MAGIC || magic === MAGIC + 1) && head.getUint32(4) === VERSION && isPageSize(pageBytes)
  if (!isRight) return undefined
  const isLittle = magic === MAGIC
  let sums = checksum(bytes.subarray(0, 24), isLittle, [0, 0])
  if (sums[0] !== head.getUint32(24) || sums[1] !== head.getUint32(28)) return undefined

  const committed = new Map<number, number>()
  let [waiting, pages]: [[page: number, at: number][], number] = [[], 0]
  const frameBytes = FRAME_HEAD_BYTES + pageBytes
  for (let at = HEAD_BYTES; at + frameBytes <= log.size; at += frameBytes) {
    const frame = await log.read(at, frameBytes)
    const view = viewOf(frame)
    if (view.getUint32(8) !== head.getUint32(16) || view.getUint32(12) !== head.getUint32(20)) break
    sums = checksum(frame.subarray(FRAME_HEAD_BYTES), isLittle, checksum(frame.subarray(0, 8), isLittle, sums))
    if (sums[0] !== view.getUint32(16) || sums[1] !== view.getUint32(20)) break
    if (committed.size + waiting.length >= MAX_FRAMES)
      throw new ServiceError('too-large', `the log of the rpm database has more than ${MAX_FRAMES} pages`)
    waiting.push([view.getUint32(0), at + FRAME_HEAD_BYTES])
    const after = view.getUint32(4)
    if (after === 0) continue
    for (const [page, from] of waiting) committed.set(page, from)
    ;[waiting, pages] = [[], after]
  }
  if (pages === 0) return undefined
  return {
    pageBytes,
    pages,
    read(page) {
      const from = committed.get(page)
      return from === undefined ? undefined : log.read(from, pageBytes)
    },
  }
}

export const isPageSize = (bytes: number): boolean => bytes >= 512 && bytes <= 65536 && (bytes & (bytes - 1)) === 0

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

function checksum(bytes: Uint8Array, isLittle: boolean, [first, second]: readonly [number, number]): [number, number] {
  const view = viewOf(bytes)
  let [a, b] = [first, second]
  for (let at = 0; at < bytes.length; at += 8) {
    a = (a + view.getUint32(at, isLittle) + b) >>> 0
    b = (b + view.getUint32(at + 4, isLittle) + a) >>> 0
  }
  return [a, b]
}
