import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { StreamOptions } from './archive.ts'

/** `[start, start + length)` of a file, as a file of its own. Closing it leaves the other open. */
export const partOf = (file: BlockSource, start: number, length: number): BlockSource => ({
  size: length,
  read: (offset, count, into) => file.read(start + offset, count, into),
  async *extents(offset, count) {
    for await (const run of file.extents(start + offset, count)) yield { ...run, offset: run.offset - start }
  },
  async close() {},
})

/** Parts one after the other as one file. Closing it leaves them open. */
export function joined(parts: readonly BlockSource[]): BlockSource {
  const starts: number[] = []
  let size = 0
  for (const part of parts) {
    starts.push(size)
    size += part.size
  }
  /** Of `[offset, offset + length)`, what lies in each part. */
  function* within(offset: number, length: number) {
    for (const [index, part] of parts.entries()) {
      const start = starts[index] as number
      const from = Math.max(offset, start)
      const to = Math.min(offset + length, start + part.size)
      if (from < to) yield { part, start, at: from - start, count: to - from }
    }
  }
  return {
    size,
    async read(offset, length) {
      const answer = new Uint8Array(length)
      for (const { part, start, at, count } of within(offset, length)) answer.set(await part.read(at, count), start + at - offset)
      return answer
    },
    async *extents(offset, length) {
      for (const { part, start, at, count } of within(offset, length)) {
        for await (const run of part.extents(at, count)) yield { ...run, offset: run.offset + start }
      }
    },
    async close() {},
  }
}

/** A file from its first byte to its last, a MiB at a time. @throws ServiceError `cancelled` */
export async function* bytesOf(file: BlockSource, { signal }: StreamOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
  for (let at = 0; at < file.size; at += MiB) {
    if (signal?.aborted) throw new ServiceError('cancelled', 'the reading was cancelled')
    yield await file.read(at, Math.min(MiB, file.size - at))
  }
}
