import { crc32 } from 'node:zlib'
import type { JournalChange } from './journal-change.ts'

/** The bytes of the journal: docs/catalog.md, section "Journal", says the same to people. */
export const JOURNAL_PREFIX = 'journal/'
const FORMAT = 1
const DIGITS = 16 // of 2^53 − 1

const padded = (n: number): string => String(n).padStart(DIGITS, '0')

/** A segment holds the changes of transactions `first` to `last`, both included. */
export interface JournalSegment {
  readonly first: number
  readonly last: number
}
export const segmentKey = ({ first, last }: JournalSegment): string => `${JOURNAL_PREFIX}${padded(first)}-${padded(last)}`

/** A snapshot holds every record as it stood after transaction `upTo` or a later one; it counts once it is `complete`. */
export const snapshotFolder = (upTo: number): string => `${JOURNAL_PREFIX}snapshot-${padded(upTo)}/`
export const snapshotPartKey = (upTo: number, part: number): string => `${snapshotFolder(upTo)}${String(part).padStart(8, '0')}`
export const snapshotCompleteKey = (upTo: number): string => `${snapshotFolder(upTo)}complete`

export type JournalKey =
  | { readonly kind: 'segment'; readonly segment: JournalSegment }
  | { readonly kind: 'part'; readonly upTo: number; readonly part: number }
  | { readonly kind: 'complete'; readonly upTo: number }

/** @returns undefined for a key that this format does not know */
export function parseJournalKey(key: string): JournalKey | undefined {
  const segment = /^journal\/(\d{16})-(\d{16})$/.exec(key)
  if (segment) return { kind: 'segment', segment: { first: Number(segment[1]), last: Number(segment[2]) } }
  const part = /^journal\/snapshot-(\d{16})\/(\d{8}|complete)$/.exec(key)
  if (!part) return undefined
  const upTo = Number(part[1])
  return part[2] === 'complete' ? { kind: 'complete', upTo } : { kind: 'part', upTo, part: Number(part[2]) }
}

/** What a blob says of itself in its first line; it must agree with the key. */
export type JournalHeader =
  | { readonly segment: JournalSegment }
  | { readonly snapshot: number; readonly part: number }
  | { readonly snapshot: number; readonly parts: number }

/** @param lines JSON texts without line feeds, one for each change */
export function encodeJournal(header: JournalHeader, lines: readonly string[]): Uint8Array {
  const body = [JSON.stringify({ journal: FORMAT, ...header }), ...lines].map(checkedLine).join('')
  return new TextEncoder().encode(body + checkedLine(JSON.stringify({ lines: lines.length, crc32: checksum(body) })))
}

const checksum = (text: string): string => crc32(text).toString(16).padStart(8, '0')
const checkedLine = (json: string): string => `${checksum(json)} ${json}\n`

export interface DecodedJournal {
  /** JSON texts of the changes whose own checksum holds. */
  readonly lines: readonly string[]
  /** Empty for a whole blob; else what is wrong with it, in sentences. */
  readonly problems: readonly string[]
}

/** Reads what can be read of a blob; damage is told, never passed over. */
export function decodeJournal(bytes: Uint8Array, expected: JournalHeader): DecodedJournal {
  const text = new TextDecoder().decode(bytes)
  const problems: string[] = []
  const whole = text.split('\n')
  if (whole.pop() !== '') problems.push('the last line is cut off')
  const lines = whole.flatMap((line, at) => {
    const json = line.slice(9)
    if (line[8] === ' ' && checksum(json) === line.slice(0, 8)) return [json]
    problems.push(`line ${at + 1} does not match its checksum`)
    return []
  })
  const header = JSON.stringify({ journal: FORMAT, ...expected })
  if (lines[0] === header) lines.shift()
  else problems.push('the first line does not say what the name of the blob says')
  const end = text.lastIndexOf('\n', text.length - 2) + 1
  const trailer = JSON.stringify({ lines: whole.length - 2, crc32: checksum(text.slice(0, end)) })
  if (lines.at(-1) === trailer) lines.pop()
  else problems.push('the last line does not match the lines before it')
  return { lines: lines.filter((line) => !line.startsWith('{"journal":') && !line.startsWith('{"lines":')), problems }
}

export const changeOf = (line: string): JournalChange => JSON.parse(line) as JournalChange // its checksum held
