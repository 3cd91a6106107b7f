import { nameOfBytes, nameOfUnits } from '../file-name.ts'
import type { NodeKind } from '../file-system.ts'
import { refuse } from './boot-sector.ts'
import { unitsAt, viewOf } from './record.ts'

/** Reparse points. Source: Microsoft, [MS-FSCC], section 2.1.2, "Reparse Point Data Structures". */
const TAG = {
  mountPoint: 0xa0000003,
  symlink: 0xa000000c,
  dedup: 0x80000013,
  wof: 0x80000017,
  unixSymlink: 0xa000001d,
  unixSocket: 0x80000023,
  unixFifo: 0x80000024,
  unixCharacter: 0x80000025,
  unixBlock: 0x80000026,
} as const
const names: Readonly<Record<number, string>> = {
  [TAG.wof]: 'a file that Windows packed (WOF)',
  [TAG.dedup]: 'a file whose data are kept once for several (data deduplication)',
}
const kinds: Readonly<Record<number, NodeKind>> = {
  [TAG.unixSocket]: 'socket',
  [TAG.unixFifo]: 'fifo',
  [TAG.unixCharacter]: 'character',
  [TAG.unixBlock]: 'block',
}
const HEADER_BYTES = 8
const UNIX_VERSION_BYTES = 4

/** What a reparse point makes of its file. */
export interface Reparse {
  readonly kind?: NodeKind
  /** Of a symbolic link. */
  readonly target?: string
  /** Of a character or block device, where it is kept. */
  readonly device?: { readonly major: number; readonly minor: number }
  /** Why its data cannot be read as they are. */
  readonly refusal?: string
}

/** @throws ServiceError `invalid-image` where a link breaks the format */
export function parseReparse(value: Uint8Array): Reparse {
  if (value.length < HEADER_BYTES) throw refuse('malformed', `a reparse point of ${value.length} bytes`)
  const view = viewOf(value)
  const tag = view.getUint32(0, true)
  if (tag === TAG.symlink || tag === TAG.mountPoint)
    return { kind: 'symlink', target: targetOf(view, tag === TAG.symlink ? 20 : 16) }
  if (tag === TAG.unixSymlink) return { kind: 'symlink', target: nameOfBytes(value.slice(HEADER_BYTES + UNIX_VERSION_BYTES)) }
  const kind = kinds[tag]
  if (kind) return { kind }
  return { refusal: names[tag] ?? `a file with a reparse point of tag 0x${tag.toString(16)}` }
}

/** The name that is put in the place of the link's. @param buffer where names begin */
function targetOf(view: DataView, buffer: number): string {
  const at = buffer + (view.byteLength >= buffer ? view.getUint16(8, true) : 0)
  const bytes = view.byteLength >= buffer ? view.getUint16(10, true) : 0
  if (bytes === 0 || bytes % 2 !== 0 || at + bytes > view.byteLength)
    throw refuse('malformed', `a link whose name has ${bytes} bytes at ${at}, of ${view.byteLength}`)
  return shownPath(nameOfUnits(unitsAt(view, at, bytes / 2)))
}

/** With slashes; a drive's letter is taken for this volume, since nothing in it says which that is. */
const shownPath = (path: string): string =>
  path
    .replace(/^\\\?\?\\/, '\\')
    .replace(/^\\?[A-Za-z]:(?=\\|$)/, (drive) => (drive.length === path.length ? '\\' : ''))
    .replace(/^\\UNC\\/, '\\\\')
    .replaceAll('\\', '/') || '/'
