import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import { unpackLz4 } from '../../packed/lz4.ts'
import type { Forward } from './cpio.ts'

/** The format of `lz4 -l`, the one that Linux unpacks: a magic number, then blocks with their lengths; one frame. Source: LZ4 Frame Format, "Legacy frame". */
export const LZ4_LEGACY_MAGIC = 0x184c2102
const BLOCK_BYTES = 8 * MiB // unpacked; the last may be smaller
const MAX_PACKED = BLOCK_BYTES + BLOCK_BYTES / 255 + 16 // LZ4_compressBound

/** What is in the blocks. Holds two of them, 16 MiB; what comes out is good until the next. @throws ServiceError `invalid-image` */
export async function* unpackLegacyLz4(input: Forward): AsyncGenerator<Uint8Array> {
  await input.skip(4)
  const block = new Uint8Array(BLOCK_BYTES)
  for (let isLast = false; ; ) {
    const head = Buffer.from(await input.take(4))
    const length = head.length < 4 ? 0 : head.readUInt32LE()
    if (length === 0) return
    if (isLast) throw refuse('a block behind the last, which is the one that is not full')
    if (length > MAX_PACKED) throw refuse(`a block of ${length} bytes`)
    const packed = await input.take(length)
    if (packed.length < length) throw refuse('it ends in a block')
    const bytes = unpackLz4(packed, block)
    if (bytes < 0) throw refuse('a block that cannot be')
    isLast = bytes < BLOCK_BYTES
    yield block.subarray(0, bytes)
  }
}

const refuse = (problem: string): ServiceError =>
  new ServiceError('invalid-image', `the lz4 data are damaged: ${problem}`, { format: 'lz4', reason: 'malformed' })
