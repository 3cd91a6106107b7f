import { isServiceError } from '../../base/errors.ts'
import type { BlobStore } from '../blobs/blob-store.ts'
import { surveyJournal } from './journal.ts'
import type { JournalChange } from './journal-change.ts'
import {
  changeOf,
  decodeJournal,
  type JournalHeader,
  segmentKey,
  snapshotCompleteKey,
  snapshotPartKey,
} from './journal-format.ts'

export interface JournalReplay {
  /** The last transaction that was applied. */
  readonly last: number
  readonly changes: number
  /** What could not be read, in sentences that name the blob. Empty: nothing of the journal is lost. */
  readonly problems: readonly string[]
}

/**
 * Applies the journal in order, a blob at a time: the snapshot, then the segments after it. What is damaged is reported, and
 * all that can be read is applied.
 *
 * @param after only what comes after this transaction; 0 for everything
 */
export async function replayJournal(
  blobs: BlobStore,
  after: number,
  apply: (changes: readonly JournalChange[]) => Promise<void>,
): Promise<JournalReplay> {
  const { snapshot, segments, unknown } = await surveyJournal(blobs)
  const problems = unknown.map((key) => `${key} is no blob of a journal that this program knows`)
  let changes = 0
  const readBlob = async (key: string, header: JournalHeader) => {
    const decoded = await readJournal(blobs, key, header)
    problems.push(...decoded.problems.map((problem) => `${key}: ${problem}`))
    changes += decoded.lines.length
    await apply(decoded.lines.map(changeOf))
  }
  let last = after
  if (snapshot && snapshot.upTo > after) {
    for (let part = 0; part < snapshot.parts; part += 1) {
      await readBlob(snapshotPartKey(snapshot.upTo, part), { snapshot: snapshot.upTo, part })
    }
    await readBlob(snapshotCompleteKey(snapshot.upTo), { snapshot: snapshot.upTo, parts: snapshot.parts })
    last = snapshot.upTo
  }
  for (const segment of segments) {
    if (segment.last <= last) continue
    if (segment.first > last + 1) problems.push(`transactions ${last + 1} to ${segment.first - 1} are missing`)
    await readBlob(segmentKey(segment), { segment: { first: segment.first, last: segment.last } })
    last = segment.last
  }
  return { last, changes, problems }
}

async function readJournal(blobs: BlobStore, key: string, header: JournalHeader) {
  try {
    return decodeJournal(await blobs.get(key), header)
  } catch (error) {
    if (isServiceError(error, 'not-found')) return { lines: [], problems: ['the blob is missing'] }
    if (isServiceError(error, 'corrupt')) return { lines: [], problems: [error.message] }
    throw error
  }
}
