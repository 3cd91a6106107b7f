import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'

const READ_BYTES = MiB

/**
 * The lines of a text file, without their ends; what is not UTF-8 becomes U+FFFD. Holds no more than a line and a piece of 1 MiB.
 * @throws ServiceError `too-large` for a file of more than `maxBytes`, or a line of more than `maxLineBytes`
 */
export async function* linesOf(
  file: BlockSource,
  { path, maxBytes, maxLineBytes = MiB }: { readonly path: string; readonly maxBytes: number; readonly maxLineBytes?: number },
): AsyncGenerator<string> {
  if (file.size > maxBytes)
    throw new ServiceError('too-large', `${path} has ${file.size} bytes, more than ${maxBytes}`, { maxBytes })
  let rest: Buffer = Buffer.alloc(0)
  for (let at = 0; at < file.size; at += READ_BYTES) {
    const read = await file.read(at, Math.min(READ_BYTES, file.size - at))
    const piece = rest.length === 0 ? Buffer.from(read.buffer, read.byteOffset, read.length) : Buffer.concat([rest, read])
    const end = piece.lastIndexOf(0x0a)
    if (end >= 0)
      for (const line of piece.toString('utf8', 0, end).split('\n')) yield line.endsWith('\r') ? line.slice(0, -1) : line
    rest = piece.subarray(end + 1)
    if (rest.length > maxLineBytes)
      throw new ServiceError('too-large', `${path} has a line of more than ${maxLineBytes} bytes`, { maxLineBytes })
  }
  if (rest.length > 0) yield rest.toString('utf8')
}
