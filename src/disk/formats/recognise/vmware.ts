import { bytes, struct, u8, u16le, u32le } from '../../../base/struct.ts'
import { MiB } from '../../../base/units.ts'
import { type Look, refusal, type Signature } from './recognition.ts'

/** Sparse extent header, little-endian; places and sizes in sectors. Source: VMware, "Virtual Disk Format 5.0", "Hosted Sparse Extent Header". */
const sparseHeader = struct('vmdk header', {
  version: u32le(4),
  capacity: bytes(12, 8),
  grain: bytes(20, 8),
  descriptorOffset: bytes(28, 8),
  descriptorSize: bytes(36, 8),
  grainTableEntries: u32le(44),
  grainDirectory: bytes(56, 8),
  newline: u8(73),
  notNewline: u8(74),
  return: u8(75),
  returnNewline: u8(76),
  compression: u16le(77),
})
const SECTOR_BYTES = 512
const MAX_VERSION = 3
const MIN_GRAIN_SECTORS = 8 // "must be a power of 2 and must be greater than 8 (4KB)"; VMware writes 8 too
const MAX_GRAIN_SECTORS = 2 ** 21 // QEMU's limit, 1 GiB
const MAX_GRAIN_TABLE_ENTRIES = 512 // QEMU's limit; every writer uses 512
const MAX_DESCRIPTOR_BYTES = 1 * MiB // QEMU's limit
const GRAIN_DIRECTORY_AT_END = 2n ** 64n - 1n // "the grain directory is in the footer"
const NO_PARENT = 'ffffffff'
const OPENABLE_TYPES = ['monolithicsparse', 'streamoptimized']

const word = (field: Uint8Array): bigint => new DataView(field.buffer, field.byteOffset, 8).getBigUint64(0, true)

export const vmwareSignatures: readonly Signature[] = [
  {
    name: 'vmdk',
    kind: 'disk',
    diskFormat: 'vmdk',
    find: (look) => (look.has(0, 'KDMV') ? 0 : undefined),
    inspect: inspectSparse,
  },
  {
    name: 'vmdk',
    kind: 'disk',
    diskFormat: 'vmdk',
    find: (look) => (look.has(0, 'COWD') || look.has(0, [0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0]) ? 0 : undefined),
    inspect: async () => {
      throw refusal(
        'vmdk',
        'external-reference',
        'this is one extent of a disk in several files; join them into one streamOptimized file',
      )
    },
  },
  {
    name: 'vmdk',
    kind: 'disk',
    diskFormat: 'vmdk',
    find: (look) => (isDescriptor(look) ? 0 : undefined),
    inspect: async () => {
      throw refusal(
        'vmdk',
        'external-reference',
        'this is a descriptor whose data lie in other files, which are never followed; make one streamOptimized file of it',
      )
    },
  },
]

/** Its own first line, or what QEMU takes for a descriptor: after comments and blank lines, a line `version=`. */
function isDescriptor(look: Look): boolean {
  const text = look.latin1(0, 4096).replace(/^\xef\xbb\xbf/, '')
  if (/^\s*# disk descriptorfile/i.test(text)) return true
  for (const line of text.split(/\r\n|\r|\n/)) {
    const meaning = line.trim()
    if (meaning !== '' && !meaning.startsWith('#')) return /^version\s*=\s*\d/i.test(meaning)
  }
  return false
}

async function inspectSparse(look: Look) {
  const h = sparseHeader.parse(look.head)
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refusal('vmdk', 'malformed', problem)
  }
  const [capacity, grain] = [word(h.capacity), word(h.grain)]
  const [descriptorOffset, descriptorSize] = [word(h.descriptorOffset), word(h.descriptorSize)]
  check(h.version >= 1 && h.version <= MAX_VERSION, `unknown version ${h.version}; 1 to ${MAX_VERSION} are known`)
  const newlinesHold = h.newline === 0x0a && h.notNewline === 0x20 && h.return === 0x0d && h.returnNewline === 0x0a
  check(newlinesHold, 'the newline test bytes are damaged: was the file sent as text?')
  check(capacity > 0n && capacity * BigInt(SECTOR_BYTES) <= BigInt(Number.MAX_SAFE_INTEGER), 'the capacity is zero or too large')
  const grainHolds = grain >= BigInt(MIN_GRAIN_SECTORS) && grain <= BigInt(MAX_GRAIN_SECTORS) && (grain & (grain - 1n)) === 0n
  check(grainHolds, 'the grain size is no power of 2 from 4 KiB to 1 GiB')
  check(
    h.grainTableEntries >= 1 && h.grainTableEntries <= MAX_GRAIN_TABLE_ENTRIES,
    'a grain table has no entry, or more than 512',
  )
  if (descriptorOffset === 0n) {
    throw refusal(
      'vmdk',
      'external-reference',
      'the extent has no descriptor of its own: it is a part of a disk in several files',
    )
  }
  check(descriptorOffset === 1n, 'the descriptor is not at sector 1')
  const descriptorBytes = Number(descriptorSize) * SECTOR_BYTES
  check(descriptorBytes > 0 && descriptorBytes < MAX_DESCRIPTOR_BYTES, 'the descriptor is empty or longer than 1 MiB')
  checkDescriptor(await look.read('the vmdk descriptor', SECTOR_BYTES, descriptorBytes), capacity)
  if (word(h.grainDirectory) === GRAIN_DIRECTORY_AT_END) checkFooter(look)
  return { virtualBytes: Number(capacity) * SECTOR_BYTES }
}

/** A footer replaces the header, so it must say the same: all but the place of the grain directory. */
function checkFooter(look: Look): void {
  if (!look.endsWith(1024, 'KDMV'))
    throw refusal('vmdk', 'truncated', 'the footer that the header promises is not at the end of the file')
  const footer = sparseHeader.parse(look.tail.subarray(look.tail.length - 1024))
  const header = sparseHeader.parse(look.head)
  const same = (['capacity', 'grain', 'descriptorOffset', 'descriptorSize'] as const).every(
    (name) => word(footer[name]) === word(header[name]),
  )
  if (!same || footer.grainTableEntries !== header.grainTableEntries) {
    throw refusal('vmdk', 'malformed', 'the footer and the header contradict each other')
  }
}

/** Every line must be understood: what a checker skips, another reader may obey. */
function checkDescriptor(padded: Uint8Array, capacity: bigint): void {
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refusal('vmdk', 'malformed', problem)
  }
  const end = padded.indexOf(0)
  const used = end < 0 ? padded : padded.subarray(0, end)
  /** What QEMU may leave behind a shorter CID: the driver says whether it is that. */
  const leftBytes = 8
  check(
    padded.subarray(used.length + leftBytes).every((byte) => byte === 0),
    'bytes follow the end of the descriptor text',
  )
  const settings = new Map<string, string>()
  const extents: string[] = []
  for (const line of Buffer.from(used)
    .toString('latin1')
    .split(/\r\n|\n/)) {
    const meaning = line.trim()
    if (meaning === '' || meaning.startsWith('#')) continue
    if (/^(RW|RDONLY|NOACCESS)\s/i.test(meaning)) {
      extents.push(meaning)
      continue
    }
    const cut = meaning.indexOf('=')
    check(cut > 0, 'the descriptor has a line that is neither setting nor extent')
    const key = meaning.slice(0, cut).trim().toLowerCase()
    check(!settings.has(key), 'the descriptor sets one key twice')
    settings.set(
      key,
      meaning
        .slice(cut + 1)
        .trim()
        .replace(/^"(.*)"$/, '$1'),
    )
  }
  if (settings.get('parentcid')?.toLowerCase() !== NO_PARENT || settings.has('parentfilenamehint')) {
    throw refusal(
      'vmdk',
      'external-reference',
      'the disk is a child of another file, which is never followed; consolidate its snapshots',
    )
  }
  const type = settings.get('createtype')?.toLowerCase() ?? ''
  if (!OPENABLE_TYPES.includes(type)) {
    throw refusal(
      'vmdk',
      'external-reference',
      'its createType keeps data in other files; only monolithicSparse and streamOptimized stand alone',
    )
  }
  const [extent] = extents
  const parts = extent?.match(/^(?:RW|RDONLY)\s+(\d{1,16})\s+SPARSE\s+"([^"]*)"(\s+0)?$/i)
  check(extents.length === 1 && parts !== null && parts !== undefined, 'the descriptor must have one extent of kind SPARSE')
  const [, sectors = '0', name = ''] = parts ?? []
  const isPlainName = name.length <= 255 && /^[^/\\:\p{Cc}]+$/u.test(name) && name !== '..' && name !== '.'
  if (!isPlainName) throw refusal('vmdk', 'external-reference', 'the extent names a path, and such names are never followed')
  check(BigInt(sectors) === capacity, 'the descriptor and the header contradict each other about the capacity')
}
