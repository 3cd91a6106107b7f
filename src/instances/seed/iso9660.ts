/**
 * Writes a CD-ROM of a few small files in one folder: ISO 9660 with Rock Ridge (POSIX names and modes) and Joliet (Windows names),
 * so that every guest sees the names as they are. No times and no chance are in it: the same files give the same bytes.
 *
 * Sources: ECMA-119 (numbers of sections below are its), Joliet Specification 1.0, SUSP and RRIP 1.10 (IEEE P1281, P1282).
 *
 *   sector 16  primary descriptor │ 17 Joliet's │ 18 end │ 19–22 path tables │ 23 root │ 24 its continuation │ 25 root of Joliet │ data
 */
export interface DiscFile {
  readonly name: string
  /** In the plain ISO 9660 of guests that know neither extension: at most 8 of A–Z, 0–9, _. */
  readonly shortName: string
  readonly bytes: Uint8Array
}

const SECTOR = 2048
const PRIMARY = 16
const JOLIET = 17
const END = 18
const PATH_TABLES = 19
const ROOT = 23
const CONTINUATION = 24
const JOLIET_ROOT = 25
const DATA = 26
const PATH_TABLE_BYTES = 10 // one entry, of the root
const MAX_LABEL_CHARACTERS = 16 // Joliet's field holds 16 of two bytes
const DATE = [80, 1, 1, 0, 0, 0, 0] // 9.1.5: 1980-01-01, for readers that take "not specified" for an error
const IS_FOLDER = 2 // 9.1.6
/** User data may hold passwords: root's only, where the guest heeds modes. */
const FILE_MODE = 0o100400
const FOLDER_MODE = 0o040500

/** @param label of the volume; lower case is against the letter of 8.4.8, and what cloud-init's `cidata` is known by */
export function isoDisc(label: string, files: readonly DiscFile[]): Uint8Array {
  if (label.length > MAX_LABEL_CHARACTERS) throw new Error(`the label ${label} is too long for a disc`)
  const starts: number[] = []
  let next = DATA
  for (const { bytes } of files) {
    starts.push(next)
    next += Math.ceil(bytes.length / SECTOR)
  }
  const disc = Buffer.alloc(next * SECTOR)
  const at = (sector: number) => disc.subarray(sector * SECTOR, (sector + 1) * SECTOR)

  writeDescriptor(at(PRIMARY), { type: 1, label, sectors: next, rootSector: ROOT, pathTables: PATH_TABLES })
  writeDescriptor(at(JOLIET), { type: 2, label, sectors: next, rootSector: JOLIET_ROOT, pathTables: PATH_TABLES + 2 })
  at(END).set([255, ...Buffer.from('CD001'), 1]) // 8.3
  for (const [index, rootSector] of [ROOT, ROOT, JOLIET_ROOT, JOLIET_ROOT].entries()) {
    writePathTable(at(PATH_TABLES + index), rootSector, index % 2 === 0 ? 'little' : 'big')
  }
  const places = files.map((file, index) => ({ ...file, sector: starts[index]! }))
  const sorted = (key: (file: DiscFile) => string) => places.toSorted((a, b) => (key(a) < key(b) ? -1 : 1)) // 9.3
  writeFolder(at(ROOT), ROOT, [
    ...sorted((file) => file.shortName).map(({ shortName, name, sector, bytes }) =>
      record(Buffer.from(`${shortName}.;1`), sector, bytes.length, 0, [posix(FILE_MODE, 1), named(name)]),
    ),
  ])
  at(CONTINUATION).set(extensionReference)
  writeFolder(at(JOLIET_ROOT), JOLIET_ROOT, [
    ...sorted((file) => file.name).map(({ name, sector, bytes }) => record(wide(`${name};1`), sector, bytes.length, 0)),
  ])
  for (const { sector, bytes } of places) disc.set(bytes, sector * SECTOR)
  return disc
}

interface Descriptor {
  /** 1: primary (8.4); 2: supplementary (8.5), which is Joliet's. */
  readonly type: 1 | 2
  readonly label: string
  readonly sectors: number
  readonly rootSector: number
  /** The little-endian one; the big-endian one follows. */
  readonly pathTables: number
}

function writeDescriptor(to: Buffer, { type, label, sectors, rootSector, pathTables }: Descriptor): void {
  const isWide = type === 2
  const text = (offset: number, length: number, value: string) => {
    const padded = isWide ? wide(value.padEnd(length >> 1, ' ')) : Buffer.from(value.padEnd(length, ' '), 'latin1')
    padded.copy(to, offset, 0, length)
  }
  to.set([type, ...Buffer.from('CD001'), 1])
  text(8, 32, '') // system
  text(40, 32, label)
  both32(to, 80, sectors)
  if (isWide) to.write('%/E', 88, 'latin1') // UCS-2, level 3: Joliet, "Escape Sequences"
  both16(to, 120, 1) // volumes of the set
  both16(to, 124, 1) // this one's number
  both16(to, 128, SECTOR)
  both32(to, 132, PATH_TABLE_BYTES)
  to.writeUInt32LE(pathTables, 140)
  to.writeUInt32BE(pathTables + 1, 148)
  record(Buffer.of(0), rootSector, SECTOR, IS_FOLDER).copy(to, 156)
  for (const [offset, length] of [
    [190, 128], // volume set
    [318, 128], // publisher
    [446, 128], // preparer
    [574, 128], // application
    [702, 37], // copyright
    [739, 37], // abstract
    [776, 37], // bibliography
  ] as const) {
    text(offset, length, '')
  }
  for (const offset of [813, 830, 847, 864]) to.write('0'.repeat(16), offset, 'latin1') // 8.4.26.1: dates, not specified
  to[881] = 1 // version of the structure of files
}

/** 9.4; "L" and "M" differ in the order of bytes. */
function writePathTable(to: Buffer, rootSector: number, order: 'little' | 'big'): void {
  to[0] = 1 // length of the name, which is one zero
  if (order === 'little') {
    to.writeUInt32LE(rootSector, 2)
    to.writeUInt16LE(1, 6)
  } else {
    to.writeUInt32BE(rootSector, 2)
    to.writeUInt16BE(1, 6)
  }
}

/** Itself, its parent, which it is as well, and `records`. */
function writeFolder(to: Buffer, sector: number, records: readonly Buffer[]): void {
  const isRockRidge = sector === ROOT
  const folder = (name: number, uses: readonly Buffer[]) => record(Buffer.of(name), sector, SECTOR, IS_FOLDER, uses)
  const all = [
    folder(0, isRockRidge ? [suspIndicator, posix(FOLDER_MODE, 2), continuation(extensionReference.length)] : []),
    folder(1, isRockRidge ? [posix(FOLDER_MODE, 2)] : []),
    ...records,
  ]
  const bytes = Buffer.concat(all)
  if (bytes.length > to.length) throw new Error(`${records.length} files do not fit into one folder of one sector`)
  bytes.copy(to)
}

/** 9.1 @param uses entries of the "system use" field, of even length together */
function record(name: Buffer, sector: number, bytes: number, flags: number, uses: readonly Buffer[] = []): Buffer {
  const head = Buffer.alloc(33 + name.length + (name.length % 2 === 0 ? 1 : 0)) // 9.1.12: padded to an even length
  both32(head, 2, sector)
  both32(head, 10, bytes)
  head.set(DATE, 18)
  head[25] = flags
  both16(head, 28, 1)
  head[32] = name.length
  name.copy(head, 33)
  const whole = Buffer.concat([head, ...uses])
  const padded = whole.length % 2 === 0 ? whole : Buffer.concat([whole, Buffer.of(0)])
  padded[0] = padded.length
  return padded
}

/** SUSP 5.3 */
const suspIndicator = Buffer.from([...Buffer.from('SP'), 7, 1, 0xbe, 0xef, 0])

/** RRIP 4.1.1: mode, links, user and group, which are root's. */
function posix(mode: number, links: number): Buffer {
  const entry = Buffer.alloc(36)
  entry.set([...Buffer.from('PX'), entry.length, 1])
  both32(entry, 4, mode)
  both32(entry, 12, links)
  return entry
}

/** RRIP 4.1.4 */
const named = (name: string): Buffer =>
  Buffer.concat([Buffer.from([...Buffer.from('NM'), 5 + name.length, 1, 0]), Buffer.from(name)])

/** SUSP 5.1 */
function continuation(length: number): Buffer {
  const entry = Buffer.alloc(28)
  entry.set([...Buffer.from('CE'), entry.length, 1])
  both32(entry, 4, CONTINUATION)
  both32(entry, 20, length)
  return entry
}

/** SUSP 5.5, with the words of RRIP 4.3, which says that they are these. */
const extensionReference = ((): Buffer => {
  const words = [
    'RRIP_1991A',
    'THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS',
    'PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE.  SEE PUBLISHER IDENTIFIER IN PRIMARY VOLUME DESCRIPTOR FOR ' +
      'CONTACT INFORMATION.',
  ]
  const lengths = words.map((word) => word.length)
  const length = 8 + lengths.reduce((sum, each) => sum + each, 0)
  return Buffer.concat([Buffer.from([...Buffer.from('ER'), length, 1, ...lengths, 1]), Buffer.from(words.join(''))])
})()

const wide = (text: string): Buffer => Buffer.from(text, 'utf16le').swap16()

/** 7.2.3 and 7.3.3: each number stands twice, in both orders of bytes. */
function both16(to: Buffer, offset: number, value: number): void {
  to.writeUInt16LE(value, offset)
  to.writeUInt16BE(value, offset + 2)
}
function both32(to: Buffer, offset: number, value: number): void {
  to.writeUInt32LE(value, offset)
  to.writeUInt32BE(value, offset + 4)
}
