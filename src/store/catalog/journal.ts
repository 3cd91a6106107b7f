import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { KiB, MiB } from '../../base/units.ts'
import type { BlobStore } from '../blobs/blob-store.ts'
import {
  decodeJournal,
  encodeJournal,
  JOURNAL_PREFIX,
  type JournalSegment,
  parseJournalKey,
  segmentKey,
  snapshotCompleteKey,
  snapshotFolder,
  snapshotPartKey,
} from './journal-format.ts'

export interface JournalLimits {
  /** So many segments are merged, or replaced by a snapshot. */
  readonly segments: number
  /** Segments of less are merged … */
  readonly smallBytes: number
  /** … into ones of about so much, which is also the size of a part of a snapshot: what compaction holds in memory. */
  readonly blobBytes: number
  /** A snapshot is made when the segments hold more than this and more than the last snapshot. */
  readonly snapshotBytes: number
}
export const defaultLimits: JournalLimits = {
  segments: 1_000,
  smallBytes: 256 * KiB,
  blobBytes: MiB,
  snapshotBytes: 16 * MiB,
}

/** Every record of the catalog as journal lines, a page at a time. A page is handed out only once it is durable. */
export type RecordPages = () => AsyncIterable<readonly string[]>

interface StoredSegment extends JournalSegment {
  readonly bytes: number
}
interface Snapshot {
  readonly upTo: number
  readonly parts: number
  readonly bytes: number
}

/**
 * The records once more, in the blob store: a segment for each group of transactions, and now and then a snapshot that
 * stands for all segments before it. Segments are put in order, each before its transactions are acknowledged.
 * Compaction runs beside them; whatever it stops half-way is cleared by the next `open`.
 */
export class Journal {
  readonly #blobs: BlobStore
  readonly #limits: JournalLimits
  #segments: StoredSegment[]
  #snapshot: Snapshot | undefined
  #compaction: Promise<void> | undefined
  #refusedAt = 0 // segments there were when a compaction failed: it is tried again after as many more

  /** Lists what is there, and deletes what a finished compaction had replaced. */
  static async open(blobs: BlobStore, limits: JournalLimits = defaultLimits): Promise<Journal> {
    const { snapshot, segments, superseded } = await surveyJournal(blobs)
    for (const key of superseded) await blobs.delete(key)
    return new Journal(blobs, limits, segments, snapshot)
  }

  private constructor(
    blobs: BlobStore,
    limits: JournalLimits,
    segments: readonly StoredSegment[],
    snapshot: Snapshot | undefined,
  ) {
    this.#blobs = blobs
    this.#limits = limits
    this.#segments = [...segments]
    this.#snapshot = snapshot
  }

  /** The last transaction that stands here without a gap before it; 0 for an empty journal. */
  get last(): number {
    return this.#segments.reduce((last, segment) => (segment.first <= last + 1 ? Math.max(last, segment.last) : last), this.start)
  }

  /** The last transaction of the newest segment, gap or not. */
  get newest(): number {
    return this.#segments.reduce((last, segment) => Math.max(last, segment.last), this.start)
  }

  /** Transactions up to this one stand in the snapshot only; 0 where there is none. */
  get start(): number {
    return this.#snapshot?.upTo ?? 0
  }

  /** Resolves when the changes are durable. @throws what the blob store throws; the same call may then be repeated */
  async append(segment: JournalSegment, lines: readonly string[]): Promise<void> {
    const bytes = encodeJournal({ segment }, lines)
    await this.#blobs.put(segmentKey(segment), [bytes])
    failpoint('journal:put')
    this.#segments.push({ ...segment, bytes: bytes.length })
  }

  /** Starts a compaction beside the writes if one is due. Its failure costs nothing but space. */
  compactIfDue(pages: RecordPages, onProblem: (error: unknown) => void): void {
    if (this.#compaction || this.#segments.length - this.#refusedAt < this.#limits.segments) return
    const segmentBytes = this.#segments.reduce((sum, { bytes }) => sum + bytes, 0)
    const snapshotDue = segmentBytes > Math.max(this.#limits.snapshotBytes, this.#snapshot?.bytes ?? 0)
    this.#compaction = (snapshotDue ? this.snapshot(pages) : this.merge())
      .then(
        () => {
          this.#refusedAt = this.#segments.length >= this.#limits.segments ? this.#segments.length : 0
        },
        (error: unknown) => {
          this.#refusedAt = this.#segments.length
          onProblem(error)
        },
      )
      .finally(() => {
        this.#compaction = undefined
      })
  }

  /** Until no compaction runs. */
  async settled(): Promise<void> {
    await this.#compaction
  }

  /**
   * Writes every record anew and deletes what that replaces.
   * @param upTo a transaction whose records, and those of all before it, are among the pages
   */
  async snapshot(pages: RecordPages, upTo = this.newest): Promise<void> {
    if (this.#snapshot && this.#snapshot.upTo >= upTo) return
    const writer = new PartWriter(this.#blobs, upTo, this.#limits.blobBytes)
    for await (const page of pages()) await writer.add(page)
    const { parts, bytes } = await writer.end()
    await this.#blobs.put(snapshotCompleteKey(upTo), [encodeJournal({ snapshot: upTo, parts }, [])])
    failpoint('journal:compacted')
    const old = this.#snapshot
    const replaced = this.#segments.filter(({ last }) => last <= upTo)
    this.#segments = this.#segments.filter(({ last }) => last > upTo)
    this.#snapshot = { upTo, parts, bytes }
    if (old && old.upTo !== upTo) await deleteAll(this.#blobs, snapshotKeys(old))
    await deleteAll(this.#blobs, replaced.map(segmentKey))
  }

  /** Joins runs of small neighbouring segments. */
  async merge(): Promise<void> {
    for (const run of runsOfSmall(this.#segments, this.#limits)) {
      const lines: string[] = []
      for (const segment of run) lines.push(...(await this.#linesOf(segment)))
      const joined = { first: run[0]!.first, last: run.at(-1)!.last }
      const bytes = encodeJournal({ segment: joined }, lines)
      await this.#blobs.put(segmentKey(joined), [bytes])
      failpoint('journal:compacted')
      const at = this.#segments.indexOf(run[0]!)
      this.#segments.splice(at, run.length, { ...joined, bytes: bytes.length })
      await deleteAll(this.#blobs, run.map(segmentKey))
    }
  }

  async #linesOf({ first, last }: JournalSegment): Promise<readonly string[]> {
    const key = segmentKey({ first, last })
    const { lines, problems } = decodeJournal(await this.#blobs.get(key), { segment: { first, last } })
    if (problems.length === 0) return lines
    throw new ServiceError('corrupt', `the journal blob ${key} is damaged: ${problems.join('; ')}`, { key })
  }
}

/** Gathers lines into parts of a snapshot. */
class PartWriter {
  readonly #blobs: BlobStore
  readonly #upTo: number
  readonly #partBytes: number
  #lines: string[] = []
  #characters = 0
  #parts = 0
  #bytes = 0

  constructor(blobs: BlobStore, upTo: number, partBytes: number) {
    this.#blobs = blobs
    this.#upTo = upTo
    this.#partBytes = partBytes
  }

  async add(lines: readonly string[]): Promise<void> {
    for (const line of lines) {
      this.#lines.push(line)
      this.#characters += line.length
      if (this.#characters >= this.#partBytes) await this.#put()
    }
  }

  async end(): Promise<{ readonly parts: number; readonly bytes: number }> {
    if (this.#lines.length > 0) await this.#put()
    return { parts: this.#parts, bytes: this.#bytes }
  }

  async #put(): Promise<void> {
    const key = snapshotPartKey(this.#upTo, this.#parts)
    const bytes = encodeJournal({ snapshot: this.#upTo, part: this.#parts }, this.#lines)
    await this.#blobs.delete(key) // an earlier try at this snapshot was stopped
    await this.#blobs.put(key, [bytes])
    this.#parts += 1
    this.#bytes += bytes.length
    this.#lines = []
    this.#characters = 0
  }
}

/** Neighbours without a gap, each small, together about one blob; at least two. */
function runsOfSmall(segments: readonly StoredSegment[], limits: JournalLimits): StoredSegment[][] {
  const runs: StoredSegment[][] = []
  let run: StoredSegment[] = []
  let runBytes = 0
  for (const segment of segments) {
    const joins = segment.bytes < limits.smallBytes && run.at(-1)?.last === segment.first - 1
    if (joins && runBytes + segment.bytes <= limits.blobBytes) {
      run.push(segment)
      runBytes += segment.bytes
      continue
    }
    if (run.length > 1) runs.push(run)
    const starts = segment.bytes < limits.smallBytes
    run = starts ? [segment] : []
    runBytes = starts ? segment.bytes : 0
  }
  if (run.length > 1) runs.push(run)
  return runs
}

const snapshotKeys = ({ upTo, parts }: Snapshot): string[] => [
  snapshotCompleteKey(upTo), // first: without it, what is left of the others counts for nothing
  ...Array.from({ length: parts }, (_, part) => snapshotPartKey(upTo, part)),
]

async function deleteAll(blobs: BlobStore, keys: readonly string[]): Promise<void> {
  for (const key of keys) await blobs.delete(key)
}

export interface JournalSurvey {
  readonly snapshot: Snapshot | undefined
  /** After the snapshot, ascending. */
  readonly segments: readonly StoredSegment[]
  /** What a compaction replaced or left unfinished. */
  readonly superseded: readonly string[]
  /** Keys that this format does not know. */
  readonly unknown: readonly string[]
}

/** What stands in the journal, found by listing it. */
export async function surveyJournal(blobs: BlobStore): Promise<JournalSurvey> {
  const keys = await Array.fromAsync(blobs.list(JOURNAL_PREFIX))
  const parsed = keys.map((key) => ({ key, found: parseJournalKey(key) }))
  const upTo = parsed.reduce<number | undefined>(
    (newest, { found }) => (found?.kind === 'complete' ? Math.max(newest ?? 0, found.upTo) : newest),
    undefined,
  )
  const segments: (StoredSegment & { readonly key: string })[] = []
  for (const { key, found } of parsed) {
    if (found?.kind === 'segment') segments.push({ ...found.segment, bytes: await blobs.size(key), key })
  }
  const counts = (segment: StoredSegment) =>
    segment.last > (upTo ?? 0) && !segments.some((other) => other !== segment && holds(other, segment))
  const kept = segments.filter(counts)
  const snapshotParts = parsed.filter(({ found }) => found?.kind === 'part' && found.upTo === upTo).map(({ key }) => key)
  let bytes = 0
  for (const key of snapshotParts) bytes += await blobs.size(key)
  return {
    snapshot: upTo === undefined ? undefined : { upTo, parts: snapshotParts.length, bytes },
    segments: kept.map(({ first, last, bytes }) => ({ first, last, bytes })).sort((a, b) => a.first - b.first || a.last - b.last),
    superseded: [
      ...segments.filter((segment) => !counts(segment)).map(({ key }) => key),
      ...parsed
        .filter(
          ({ key, found }) => found && found.kind !== 'segment' && !(upTo !== undefined && key.startsWith(snapshotFolder(upTo))),
        )
        .map(({ key }) => key)
        .sort((a, b) => Number(b.endsWith('complete')) - Number(a.endsWith('complete'))),
    ],
    unknown: parsed.filter(({ found }) => !found).map(({ key }) => key),
  }
}

const holds = (outer: JournalSegment, inner: JournalSegment): boolean =>
  outer.first <= inner.first && outer.last >= inner.last && (outer.first < inner.first || outer.last > inner.last)
