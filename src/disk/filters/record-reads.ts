import type { Filter } from '../block/block-source.ts'

export interface FirstRead {
  /** Of the source, in units. */
  readonly unit: number
  /** Milliseconds since the first of all reads. */
  readonly afterMs: number
}

export interface RecordOptions {
  /** What the source fetches at a time, aligned to it: its chunk size. */
  readonly unitBytes: number
  /** The record ends after so many … */
  readonly maxUnits: number
  /** … or so long after the first read. */
  readonly maxMs: number
  readonly now?: () => number
}

export interface ReadRecorder {
  readonly filter: Filter
  /** Settles when the record is at an end, or the source is closed: which units were read, in the order of their first reads. */
  readonly ended: Promise<readonly FirstRead[]>
  /** Ends it now. */
  end(): void
}

/** Notes in which order the parts of a source are read for the first time, until it knows enough; then it costs nothing. */
export function recordReads({ unitBytes, maxUnits, maxMs, now = () => performance.now() }: RecordOptions): ReadRecorder {
  const reads: FirstRead[] = []
  let seen: Set<number> | undefined = new Set()
  let startedAt: number | undefined
  let timer: NodeJS.Timeout | undefined
  const { promise: ended, resolve } = Promise.withResolvers<readonly FirstRead[]>()
  const end = () => {
    seen = undefined
    clearTimeout(timer)
    resolve(reads)
  }
  const note = (offset: number, length: number): void => {
    if (startedAt === undefined) {
      startedAt = now()
      timer = setTimeout(end, maxMs).unref()
    }
    const afterMs = now() - startedAt
    if (afterMs > maxMs) {
      end()
      return
    }
    for (let unit = Math.floor(offset / unitBytes); unit * unitBytes < offset + length; unit += 1) {
      if (seen!.has(unit)) continue
      seen!.add(unit)
      reads.push({ unit, afterMs })
      if (reads.length < maxUnits) continue
      end()
      return
    }
  }
  return {
    ended,
    end,
    filter: (next) => ({
      size: next.size,
      read: (offset, length, into) => {
        if (seen && length > 0) note(offset, length)
        return next.read(offset, length, into)
      },
      extents: (offset, length) => next.extents(offset, length),
      close: () => {
        end()
        return next.close()
      },
    }),
  }
}
