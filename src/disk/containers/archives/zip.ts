import { crc32, createInflateRaw } from 'node:zlib'
import { isServiceError } from '../../../base/errors.ts'
import { struct, u8, u16le, u32le, u64le } from '../../../base/struct.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { throughZlib } from '../compression/through-zlib.ts'
import { type Archive, inertName, type Member, MemberList, refuseArchive, shown } from './archive.ts'
import { bytesOf, partOf } from './part.ts'

/** Source: PKWARE APPNOTE.TXT 6.3.10; numbers are little-endian. What counts is the central directory at the end; headers before the data must agree. */
const endRecord = struct('zip end of central directory record', {
  magic: u32le(0),
  disk: u16le(4),
  directoryDisk: u16le(6),
  entriesHere: u16le(8),
  entries: u16le(10),
  directoryBytes: u32le(12),
  directoryOffset: u32le(16),
  commentBytes: u16le(20),
})
const end64Locator = struct('zip64 end of central directory locator', {
  magic: u32le(0),
  disk: u32le(4),
  offset: u64le(8),
  disks: u32le(16),
})
const end64Record = struct('zip64 end of central directory record', {
  magic: u32le(0),
  disk: u32le(16),
  directoryDisk: u32le(20),
  entriesHere: u64le(24),
  entries: u64le(32),
  directoryBytes: u64le(40),
  directoryOffset: u64le(48),
})
const entryHeader = struct('zip central directory header', {
  magic: u32le(0),
  system: u8(5),
  flags: u16le(8),
  method: u16le(10),
  crc: u32le(16),
  storedBytes: u32le(20),
  bytes: u32le(24),
  nameBytes: u16le(28),
  extraBytes: u16le(30),
  commentBytes: u16le(32),
  disk: u16le(34),
  attributes: u32le(38),
  offset: u32le(42),
})
const localHeader = struct('zip local file header', {
  magic: u32le(0),
  flags: u16le(6),
  method: u16le(8),
  crc: u32le(14),
  storedBytes: u32le(18),
  bytes: u32le(22),
  nameBytes: u16le(26),
  extraBytes: u16le(28),
})
const END_MAGIC = 0x06054b50
const END64_LOCATOR_MAGIC = 0x07064b50
const END64_MAGIC = 0x06064b50
const ENTRY_MAGIC = 0x02014b50
const LOCAL_MAGIC = 0x04034b50
const MAX_DIRECTORY_BYTES = 4 * 1024 * 1024 // 4096 entries of a kilobyte
const MAX_COMMENT_BYTES = 65535
const ENCRYPTED = 0x2041 // bits 0, 6 and 13
const SIZES_FOLLOW = 8 // bit 3: the local header was written before they were known
const METHOD_STORED = 0
const METHOD_DEFLATE = 8
const MAX_DEFLATE_RATIO = 1032 // what the format can do at most: 258 bytes for 2 bits
const UNIX = 3
const UNIX_KIND = 0xf000
const UNIX_FILE = 0x8000
const UNIX_FOLDER = 0x4000
const UNIX_FIFO = 0x1000 // what `zip` says of a member that it took from a pipe
const EXTRA_ZIP64 = 1

interface Directory {
  readonly entries: number
  readonly offset: number
  readonly bytes: number
}
interface Entry {
  readonly name: string
  readonly isFolder: boolean
  readonly flags: number
  readonly method: number
  readonly crc: number
  readonly storedBytes: number
  readonly bytes: number
  readonly offset: number
}

/**
 * Lists the members of a zip archive. Reads the central directory, at most 4 MiB, and the header of each member.
 * @throws ServiceError `invalid-image` for members that overlap, lie outside the file or before its start, for links, for names that
 *   lead elsewhere and for sizes that cannot be; `unsupported` for encryption, for other methods than stored and deflate, and for several disks
 */
export async function listZip(file: BlockSource): Promise<Archive> {
  const directory = await findDirectory(file)
  const list = new MemberList('zip')
  const entries = readEntries(await file.read(directory.offset, directory.bytes), directory, list)
  let [end, last] = [0, 'the start of the file']
  const found: Member[] = []
  for (const entry of entries.toSorted((a, b) => a.offset - b.offset)) {
    if (entry.offset < end)
      throw refuseArchive('zip', 'overlap', `${shown(entry.name)} begins at byte ${entry.offset}, inside ${last}`, {
        offset: entry.offset,
      })
    if (found.length === 0 && end === 0 && entry.offset !== 0)
      throw refuseArchive('zip', 'malformed', `something lies before its first member, which begins at byte ${entry.offset}`)
    const start = await readLocal(file, entry, directory)
    end = start + entry.storedBytes
    if (end > directory.offset)
      throw refuseArchive(
        'zip',
        'truncated',
        `${shown(entry.name)} ends at byte ${end}, behind the start of the central directory at ${directory.offset}`,
        { offset: entry.offset },
      )
    last = shown(entry.name)
    if (!entry.isFolder) list.add(memberOf(file, entry, start))
  }
  return { kind: 'zip', members: list.members }
}

/** The end record is the last thing in the file, a comment of at most 64 KiB apart. */
async function findDirectory(file: BlockSource): Promise<Directory> {
  const tailBytes = Math.min(file.size, endRecord.bytes + MAX_COMMENT_BYTES)
  const tail = await file.read(file.size - tailBytes, tailBytes)
  const view = new DataView(tail.buffer, tail.byteOffset, tail.length)
  for (let at = tailBytes - endRecord.bytes; at >= 0; at -= 1) {
    if (view.getUint32(at, true) !== END_MAGIC) continue
    const record = endRecord.parse(tail.subarray(at))
    if (at + endRecord.bytes + record.commentBytes !== tailBytes) continue
    return directoryOf(file, record, file.size - tailBytes + at)
  }
  throw refuseArchive('zip', 'truncated', 'it has no end of central directory record')
}

async function directoryOf(file: BlockSource, record: ReturnType<typeof endRecord.parse>, at: number): Promise<Directory> {
  let found = { ...record, offset: record.directoryOffset, bytes: record.directoryBytes }
  let limit = at
  const large = await find64(file, at)
  if (large) {
    limit = large.at
    const agrees = (small: number, wide: number, full: number) => small === full || small === wide
    const isSame =
      agrees(record.entries, large.entries, 0xffff) &&
      agrees(record.directoryBytes, large.directoryBytes, 0xffffffff) &&
      agrees(record.directoryOffset, large.directoryOffset, 0xffffffff)
    if (!isSame) throw refuseArchive('zip', 'malformed', 'its two end records disagree')
    found = { ...found, ...large, offset: large.directoryOffset, bytes: large.directoryBytes }
  }
  const { disk, directoryDisk, entriesHere, entries, offset, bytes } = found
  if (disk !== 0 || directoryDisk !== 0 || entriesHere !== entries)
    throw refuseArchive('zip', 'unsupported', 'it is split over several disks')
  if (bytes > MAX_DIRECTORY_BYTES)
    throw refuseArchive('zip', 'malformed', `its central directory has ${bytes} bytes; ${MAX_DIRECTORY_BYTES} is the limit`, {
      max: MAX_DIRECTORY_BYTES,
    })
  if (offset + bytes !== limit)
    throw refuseArchive(
      'zip',
      'malformed',
      `its central directory, ${bytes} bytes from byte ${offset}, does not end at its end record`,
      { offset },
    )
  return { entries, offset, bytes }
}

/** The zip64 end record, where there is a locator of it right before the end record at `at`. */
async function find64(file: BlockSource, at: number) {
  if (at < end64Locator.bytes) return undefined
  const bytes = await file.read(at - end64Locator.bytes, end64Locator.bytes)
  if (Buffer.from(bytes).readUInt32LE(0) !== END64_LOCATOR_MAGIC) return undefined
  const { offset } = end64Locator.parse(bytes)
  const isInside = offset <= at - end64Locator.bytes - end64Record.bytes
  if (!isInside) throw refuseArchive('zip', 'truncated', 'its zip64 end record lies outside the file', { offset })
  const record = end64Record.parse(await file.read(offset, end64Record.bytes))
  if (record.magic !== END64_MAGIC)
    throw refuseArchive('zip', 'malformed', `no zip64 end record is at byte ${offset}`, { offset })
  return { ...record, at: offset }
}

function readEntries(bytes: Uint8Array, directory: Directory, list: MemberList): Entry[] {
  const entries: Entry[] = []
  let at = 0
  while (at < bytes.length) {
    const offset = directory.offset + at
    list.count(offset)
    const header = entryHeader.parse(bytes.subarray(at))
    if (header.magic !== ENTRY_MAGIC)
      throw refuseArchive('zip', 'malformed', `no central directory header is at byte ${offset}`, { offset })
    const nameAt = at + 46
    const extraAt = nameAt + header.nameBytes
    at = extraAt + header.extraBytes + header.commentBytes
    if (at > bytes.length)
      throw refuseArchive('zip', 'truncated', `the central directory header at byte ${offset} is cut off`, { offset })
    entries.push(entryOf(header, bytes.subarray(nameAt, extraAt), bytes.subarray(extraAt, extraAt + header.extraBytes), offset))
  }
  if (entries.length !== directory.entries)
    throw refuseArchive(
      'zip',
      'malformed',
      `its end record counts ${directory.entries} entries where there are ${entries.length}`,
    )
  return entries
}

function entryOf(header: ReturnType<typeof entryHeader.parse>, nameBytes: Uint8Array, extra: Uint8Array, at: number): Entry {
  const name = inertName('zip', nameBytes, at)
  const { flags, method, crc } = header
  if ((flags & ENCRYPTED) !== 0) throw refuseArchive('zip', 'encrypted', `${shown(name)} is encrypted`)
  if (method !== METHOD_STORED && method !== METHOD_DEFLATE)
    throw refuseArchive('zip', 'unsupported', `${shown(name)} is packed by method ${method}; stored (0) and deflate (8) are read`)
  const { bytes, storedBytes, offset } = large(header, extra, at)
  const isFolder = nameBytes.at(-1) === 0x2f
  const kind = header.system === UNIX ? (header.attributes >>> 16) & UNIX_KIND : 0
  if (![0, UNIX_FILE, UNIX_FIFO].includes(kind) && !(kind === UNIX_FOLDER && isFolder))
    throw refuseArchive('zip', 'not-a-file', `${shown(name)} is a link or a device; only regular files are taken`)
  if (header.disk !== 0 && header.disk !== 0xffff) throw refuseArchive('zip', 'unsupported', 'it is split over several disks')
  if (isFolder && bytes !== 0) throw refuseArchive('zip', 'malformed', `the folder ${shown(name)} has a size`)
  if (method === METHOD_STORED && bytes !== storedBytes)
    throw refuseArchive('zip', 'malformed', `${shown(name)} is stored and has two sizes, ${bytes} and ${storedBytes}`)
  if (bytes > storedBytes * MAX_DEFLATE_RATIO) {
    throw refuseArchive(
      'zip',
      'amplification',
      `${shown(name)} has ${bytes} bytes packed in ${storedBytes}; deflate can make ${MAX_DEFLATE_RATIO} of one at most`,
    )
  }
  return { name, isFolder, flags, method, crc, storedBytes, bytes, offset }
}

/** Sizes and place that need 64 bits stand in an extra field, in this order, each only where its own field is full. */
function large(header: ReturnType<typeof entryHeader.parse>, extra: Uint8Array, at: number) {
  const fields = extraField(extra, at)
  const view = fields && new DataView(fields.buffer, fields.byteOffset, fields.length)
  let next = 0
  const of = (value: number): number => {
    if (value !== 0xffffffff || !view) return value
    if (next + 8 > view.byteLength)
      throw refuseArchive('zip', 'malformed', `the zip64 field of the header at byte ${at} is cut off`, { offset: at })
    const wide = Number(view.getBigUint64(next, true))
    if (!Number.isSafeInteger(wide))
      throw refuseArchive('zip', 'malformed', `the header at byte ${at} has a value of 2^53 or more`, { offset: at })
    next += 8
    return wide
  }
  const bytes = of(header.bytes)
  const storedBytes = of(header.storedBytes)
  return { bytes, storedBytes, offset: of(header.offset) }
}

function extraField(extra: Uint8Array, at: number): Uint8Array | undefined {
  for (let next = 0; next + 4 <= extra.length; ) {
    const [id, bytes] = [
      (extra[next] as number) + (extra[next + 1] as number) * 256,
      (extra[next + 2] as number) + (extra[next + 3] as number) * 256,
    ]
    if (next + 4 + bytes > extra.length)
      throw refuseArchive('zip', 'malformed', `an extra field of the header at byte ${at} is cut off`, { offset: at })
    if (id === EXTRA_ZIP64) return extra.subarray(next + 4, next + 4 + bytes)
    next += 4 + bytes
  }
  return undefined
}

/** @returns where the data begin */
async function readLocal(file: BlockSource, entry: Entry, directory: Directory): Promise<number> {
  const { offset, name } = entry
  if (offset > directory.offset - 30)
    throw refuseArchive('zip', 'truncated', `the header of ${shown(name)} lies outside the file, at byte ${offset}`, { offset })
  const header = localHeader.parse(await file.read(offset, localHeader.bytes))
  if (header.magic !== LOCAL_MAGIC)
    throw refuseArchive('zip', 'malformed', `no local file header is at byte ${offset}`, { offset })
  const nameAt = offset + 30
  const start = nameAt + header.nameBytes + header.extraBytes
  if (start > directory.offset) throw refuseArchive('zip', 'truncated', `the header of ${shown(name)} is cut off`, { offset })
  const differs = (what: string) =>
    refuseArchive(
      'zip',
      'malformed',
      `the local header of ${shown(name)}, at byte ${offset}, has another ${what} than the central directory`,
      { offset },
    )
  if (inertName('zip', await file.read(nameAt, header.nameBytes), offset) !== name) throw differs('name')
  if (header.method !== entry.method) throw differs('method')
  if ((header.flags & ENCRYPTED) !== 0) throw differs('encryption')
  const isKnown = (header.flags & SIZES_FOLLOW) === 0 && header.storedBytes !== 0xffffffff && header.bytes !== 0xffffffff
  if (isKnown && (header.storedBytes !== entry.storedBytes || header.bytes !== entry.bytes)) throw differs('size')
  if (isKnown && header.crc !== entry.crc) throw differs('checksum')
  return start
}

function memberOf(file: BlockSource, entry: Entry, start: number): Member {
  const { name, bytes, storedBytes, method } = entry
  const isPlain = method === METHOD_STORED
  return {
    name,
    bytes,
    offset: start,
    storedBytes,
    isPlain,
    open() {
      if (isPlain) return partOf(file, start, bytes)
      throw refuseArchive('zip', 'unsupported', `${shown(name)} is packed: it can only be read from its first byte to its last`)
    },
    stream: (options) => verified(entry, bytesOf(partOf(file, start, storedBytes), options)),
  }
}

async function* verified(
  entry: Entry,
  stored: AsyncGenerator<Uint8Array, void, undefined>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const damaged = (problem: string) => refuseArchive('zip', 'malformed', `${shown(entry.name)} is damaged: ${problem}`)
  let [crc, given, isWhole, hasMore] = [0, 0, true, false]
  const plain =
    entry.method === METHOD_STORED
      ? stored
      : throughZlib(stored, createInflateRaw({ chunkSize: 256 * 1024 }), (rest, isEnd) => {
          isWhole = rest.length === 0
          hasMore = !isEnd
        })
  try {
    for await (const piece of plain) {
      given += piece.length
      if (given > entry.bytes) throw damaged(`it holds more than ${entry.bytes} bytes`)
      crc = crc32(piece, crc)
      yield piece
    }
    if (hasMore && !(await stored.next()).done) isWhole = false
  } catch (cause) {
    if (isServiceError(cause) || !(cause instanceof Error && 'code' in cause && String(cause.code).startsWith('Z_'))) throw cause
    throw damaged('it cannot be unpacked')
  } finally {
    await stored.return()
  }
  if (!isWhole) throw damaged('something follows its packed data')
  if (given !== entry.bytes) throw damaged(`it holds ${given} of ${entry.bytes} bytes`)
  if (crc !== entry.crc) throw damaged('its checksum is another one')
}
