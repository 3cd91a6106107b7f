import { PAGE_ENTRIES } from '../content/manifest-format.ts'
import type { ByteRange } from './chunk-store.ts'
import type { DiskRun } from './disk-runs.ts'
import { SLOT_BYTES } from './workers/slot-pool.ts'

/** Some of a disk within one page of its manifest, worked on together: what is read of it fits into one slot. */
export interface Stretch extends ByteRange {
  /** Parts that are read, ascending. All but the last of a disk are whole chunks. */
  readonly read: readonly ByteRange[]
  /** Parts that are as in the manifest that the disk is over. What is neither is zeros. */
  readonly known: readonly ByteRange[]
}

/**
 * Puts runs together, so that changes which lie scattered over a disk take as many questions to the index, and as many jobs of the
 * workers, as when they lie side by side.
 */
export async function* stretchesOf(runs: AsyncIterable<DiskRun>, chunkBytes: number): AsyncGenerator<Stretch> {
  const pageBytes = PAGE_ENTRIES * chunkBytes
  let open = newStretch(0)
  for await (const { offset, length, kind } of runs) {
    const end = offset + length
    for (let at = offset; at < end; ) {
      const pageEnd = (Math.floor(at / pageBytes) + 1) * pageBytes
      const next = Math.min(end, pageEnd, kind === 'read' ? at + SLOT_BYTES - open.readBytes : end)
      if (kind !== 'zeros') open[kind].push({ offset: at, length: next - at })
      if (kind === 'read') open.readBytes += next - at
      open.length += next - at
      at = next
      if (at === pageEnd || open.readBytes === SLOT_BYTES) {
        yield open
        open = newStretch(at)
      }
    }
  }
  if (open.length > 0) yield open
}

const newStretch = (offset: number) => ({
  offset,
  length: 0,
  readBytes: 0,
  read: [] as ByteRange[],
  known: [] as ByteRange[],
})
