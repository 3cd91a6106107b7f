import { TextDecoder } from 'node:util'
import { isZero } from '../../block/zero.ts'
import { refuse } from './header.ts'

/** What a reader must know of a descriptor. Source: VMware, "Virtual Disk Format 5.0", "The Descriptor File". */
export interface Descriptor {
  /** In lower case. */
  readonly createType: string
  readonly hasParent: boolean
  readonly extents: readonly ExtentLine[]
}
export interface ExtentLine {
  readonly sectors: number
  readonly kind: 'SPARSE' | 'FLAT' | 'VMFS' | 'ZERO'
  /** A plain name; empty for ZERO. */
  readonly name: string
  /** Where the extent begins in the file of that name. */
  readonly startSector: number
}

const MAX_LINES = 65_536 // 32,768 extents of 2 GiB are 64 TiB
const MAX_LINE_CHARS = 4096
const MAX_NAME_CHARS = 255
const NO_PARENT = 0xffffffff
const VERSIONS = ['1', '2', '3', '4'] // the technote knows 1; ESXi writes up to 4
/** What descriptors are written in, with the name that a decoder knows it by. Source: libvmdk's documentation, "Encodings". */
const ENCODINGS: Readonly<Record<string, string>> = {
  'utf-8': 'utf-8',
  'windows-1252': 'windows-1252',
  big5: 'big5',
  gbk: 'gbk',
  shift_jis: 'shift_jis',
}
const DEVICE_TYPES = [
  'fulldevice',
  'partitioneddevice',
  'vmfsraw',
  'vmfsrdm',
  'vmfsrdmp',
  'vmfsrawdevicemap',
  'vmfspassthroughrawdevicemap',
]

/** A CID has 1 to 8 digits. */
const MAX_LEFT_BYTES = 8

/**
 * Zeros; or what QEMU leaves where it writes a shorter CID over a longer one, with what follows moved forward: the last bytes of the
 * text once more. QEMU block/vmdk.c, vmdk_write_cid.
 */
function isEnd(rest: Uint8Array, text: Uint8Array): boolean {
  if (!isZero(rest.subarray(MAX_LEFT_BYTES))) return false
  const left = rest.subarray(0, MAX_LEFT_BYTES)
  const end = left.findLastIndex((byte) => byte !== 0) + 1
  const start = left.findIndex((byte) => byte !== 0)
  if (start < 0) return true
  return Buffer.compare(left.subarray(start, end), text.subarray(text.length - (end - start))) === 0
}

/**
 * Every line must be understood: what one reader skips, another may obey.
 * @param padded  the text, and zeros behind it
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export function parseDescriptor(padded: Uint8Array): Descriptor {
  const check = (holds: boolean, problem: string, details: Record<string, number> = {}) => {
    if (!holds) throw refuse('malformed', problem, details)
  }
  const end = padded.indexOf(0)
  const used = end < 0 ? padded : padded.subarray(0, end)
  check(isEnd(padded.subarray(used.length), used), 'bytes follow the end of the descriptor text')
  const lines = Buffer.from(used.buffer, used.byteOffset, used.length)
    .toString('latin1')
    .split(/\r\n|\n/)
  check(lines.length <= MAX_LINES, `the descriptor has more than ${MAX_LINES} lines`)
  const settings = new Map<string, string>()
  const extents: { readonly text: string; readonly line: number }[] = []
  for (const [index, text] of lines.entries()) {
    const line = index + 1
    check(text.length <= MAX_LINE_CHARS, `line ${line} of the descriptor has more than ${MAX_LINE_CHARS} characters`, { line })
    const meaning = text.trim()
    if (meaning === '' || meaning.startsWith('#')) continue
    if (/^(RW|RDONLY|NOACCESS)\s/i.test(meaning)) {
      extents.push({ text: meaning, line })
      continue
    }
    const cut = meaning.indexOf('=')
    check(cut > 0, `line ${line} of the descriptor is neither setting nor extent`, { line })
    const key = meaning.slice(0, cut).trim().toLowerCase()
    check(!settings.has(key), `line ${line} of the descriptor sets a key for the second time`, { line })
    const value = meaning.slice(cut + 1).trim()
    settings.set(key, value.length >= 2 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value)
  }
  return understood(settings, extents)
}

function understood(
  settings: ReadonlyMap<string, string>,
  lines: readonly { readonly text: string; readonly line: number }[],
): Descriptor {
  const version = settings.get('version')
  if (version === undefined) throw refuse('malformed', 'the descriptor has no version: this is no VMDK file')
  if (!VERSIONS.includes(version)) throw refuse('unknown-feature', 'the descriptor has an unknown version; 1 to 4 are known')
  for (const key of settings.keys()) {
    if (key.startsWith('encryption')) throw refuse('encrypted', 'the disk is encrypted')
  }
  const createType = settings.get('createtype')?.toLowerCase()
  if (createType === undefined) throw refuse('malformed', 'the descriptor has no createType')
  if (DEVICE_TYPES.includes(createType)) {
    throw refuse('external-reference', 'its createType is a disk of the host, which is never opened')
  }
  const hexadecimal = (key: string): number => {
    const value = settings.get(key.toLowerCase()) ?? ''
    if (!/^[0-9a-f]{1,8}$/i.test(value)) throw refuse('malformed', `${key} is no number of up to 8 hexadecimal digits`)
    return Number.parseInt(value, 16)
  }
  hexadecimal('CID')
  const hasParent = hexadecimal('parentCID') !== NO_PARENT
  if (!hasParent && settings.has('parentfilenamehint')) {
    throw refuse('external-reference', 'the descriptor names a parent with parentFileNameHint, and denies it with parentCID')
  }
  const encoding = ENCODINGS[settings.get('encoding')?.toLowerCase() ?? 'utf-8']
  if (encoding === undefined) throw refuse('unknown-feature', 'the descriptor is in an encoding that is not known')
  const decoder = new TextDecoder(encoding, { fatal: true })
  const extents = lines.map(({ text, line }) => parseExtent(text, line, decoder))
  if (extents.length === 0) throw refuse('malformed', 'the descriptor has no extent')
  return { createType, hasParent, extents }
}

function parseExtent(text: string, line: number, decoder: TextDecoder): ExtentLine {
  const parts = text.match(/^(RW|RDONLY|NOACCESS)\s+(\d{1,16})\s+([A-Z]+)(?:\s+"([^"]*)"(?:\s+(\d{1,16}))?)?$/i)
  if (!parts) throw refuse('malformed', `line ${line} of the descriptor is no extent`, { line })
  const [, access = '', size = '', type = '', quoted, start] = parts
  const kind = type.toUpperCase()
  if (access.toUpperCase() === 'NOACCESS')
    throw refuse('unknown-feature', `the extent of line ${line} may not be read: NOACCESS`, { line })
  if (kind === 'VMFSRDM' || kind === 'VMFSRAW') {
    throw refuse('external-reference', `the extent of line ${line} is a disk of the host, which is never opened`, { line })
  }
  if (kind !== 'SPARSE' && kind !== 'FLAT' && kind !== 'VMFS' && kind !== 'ZERO') {
    throw refuse('unknown-feature', `the extent of line ${line} is of a kind that is not read; SPARSE, FLAT, VMFS and ZERO are`, {
      line,
    })
  }
  const [sectors, startSector] = [Number(size), Number(start ?? 0)]
  if (sectors === 0) throw refuse('malformed', `the extent of line ${line} has no sectors`, { line })
  const holds = kind === 'ZERO' ? quoted === undefined : quoted !== undefined && (kind !== 'FLAT' || start !== undefined)
  if (!holds) throw refuse('malformed', `the extent of line ${line} lacks its file or its offset, or has one too many`, { line })
  if (kind === 'SPARSE' && startSector !== 0)
    throw refuse('malformed', `the sparse extent of line ${line} has an offset`, { line })
  return { sectors, kind, name: kind === 'ZERO' ? '' : plainName(quoted ?? '', line, decoder), startSector }
}

/** A name that is a path, or a protocol, is refused before anyone looks for it. */
function plainName(quoted: string, line: number, decoder: TextDecoder): string {
  let name: string
  try {
    name = decoder.decode(Buffer.from(quoted, 'latin1'))
  } catch (cause) {
    const damaged = refuse('malformed', `the name in line ${line} of the descriptor is not in the encoding that it says`, {
      line,
    })
    throw Object.assign(damaged, { cause })
  }
  const isPlain = name.length <= MAX_NAME_CHARS && /^[^/\\:\p{Cc}]+$/u.test(name) && name !== '..' && name !== '.'
  if (!isPlain) {
    throw refuse('external-reference', `the extent of line ${line} is named by a path, and such names are never followed`, {
      line,
    })
  }
  return name
}
