import { type ErrorDetails, ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'

/** Several files in one. Nothing is ever written to a disk under the names in it. */
export interface Archive {
  readonly kind: 'tar' | 'zip'
  /** Regular files alone, in the order in which they lie in the archive; folders are left out. */
  readonly members: readonly Member[]
}
export interface Member {
  /** Parts divided by `/`, none of them empty, `.` or `..`; no control characters. Names differ by more than upper and lower case. */
  readonly name: string
  /** Unpacked, with its holes. */
  readonly bytes: number
  /** Where its data begin in the archive, and how long they are there: shorter than the member where it is packed or sparse. */
  readonly offset: number
  readonly storedBytes: number
  readonly isPlain: boolean
  /**
   * The member where it lies; closing it leaves the archive open. Checksums are not verified.
   * @throws ServiceError `unsupported` where it is packed
   */
  open(): BlockSource
  /**
   * From its first byte to its last, unpacked, with its checksum verified where the archive has one.
   * @throws ServiceError `invalid-image` where it is damaged, or not as long as the archive says; `cancelled`
   */
  stream(options?: StreamOptions): AsyncIterable<Uint8Array>
}
export interface StreamOptions {
  readonly signal?: AbortSignal | undefined
}

/** Why an archive was refused: stable words for clients, in `details.reason`. */
export type ArchiveRefusal =
  | 'malformed'
  | 'truncated'
  | 'unsupported'
  | 'encrypted'
  | 'hostile-name'
  | 'not-a-file'
  | 'overlap'
  | 'amplification'

export const refuseArchive = (kind: string, reason: ArchiveRefusal, problem: string, details: ErrorDetails = {}): ServiceError =>
  new ServiceError(reason === 'unsupported' || reason === 'encrypted' ? 'unsupported' : 'invalid-image', `${kind}: ${problem}`, {
    format: kind,
    reason,
    ...details,
  })

/** Disks come alone or by the dozen; a million members would cost a gigabyte of memory. */
const MAX_MEMBERS = 4096
const MAX_NAME_BYTES = 1024

/** The members until now. */
export class MemberList {
  readonly members: Member[] = []
  readonly #kind: Archive['kind']
  readonly #names = new Set<string>()
  #entries = 0

  constructor(kind: Archive['kind']) {
    this.#kind = kind
  }

  /** One more entry, whatever it is. @throws ServiceError `invalid-image` beyond the limit */
  count(offset: number): void {
    this.#entries += 1
    if (this.#entries > MAX_MEMBERS)
      throw refuseArchive(this.#kind, 'malformed', `it has more than ${MAX_MEMBERS} entries, at byte ${offset}`, {
        max: MAX_MEMBERS,
        offset,
      })
  }
  add(member: Member): void {
    const folded = member.name.normalize('NFC').toLowerCase()
    if (this.#names.has(folded))
      throw refuseArchive(this.#kind, 'hostile-name', `two members have the name ${shown(member.name)}`)
    this.#names.add(folded)
    this.members.push(member)
  }
}

/**
 * A name as it may stand in a list: `./` at its start is left out, and a `/` at its end.
 * @throws ServiceError `invalid-image` for names that lead out of a folder, or are no text
 */
export function inertName(kind: Archive['kind'], bytes: Uint8Array, offset: number): string {
  const bad = (problem: string) =>
    refuseArchive(kind, 'hostile-name', `the name of the entry at byte ${offset} ${problem}`, { offset })
  if (bytes.length > MAX_NAME_BYTES) throw bad(`has ${bytes.length} bytes; ${MAX_NAME_BYTES} is the limit`)
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw bad('is not UTF-8')
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/.test(text)) throw bad('has control characters in it')
  if (text.includes('\\')) throw bad('has a backslash in it')
  const name = text.replace(/^(?:\.\/)+/, '').replace(/\/$/, '')
  const parts = name.split('/')
  if (text === './' || text === '.') return '.'
  if (parts.some((part) => part === '' || part === '.' || part === '..') || /^[a-z]:/i.test(name)) {
    throw bad(`is ${shown(text)}, which leads elsewhere than into the archive's own folder`)
  }
  return name
}

export const shown = (name: string): string => JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name)
