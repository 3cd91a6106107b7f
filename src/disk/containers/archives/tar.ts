import type { BlockSource } from '../../block/block-source.ts'
import { type Archive, inertName, MemberList, refuseArchive, shown } from './archive.ts'
import { bytesOf, partOf } from './part.ts'

/**
 * tar: each member is a header of 512 bytes and its data, filled up to 512; two blocks of zeros end it. Source: POSIX.1-2017, pax,
 * "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual, "Basic Tar Format", for long names and large numbers.
 */
export const BLOCK_BYTES = 512
const MAX_TEXT_BYTES = 64 * 1024 // of a pax header or a long name: it is read whole
const MAX_ALL_TEXT_BYTES = 4 * 1024 * 1024 // of all of them: each record is looked at
const MAX_TRAILER_BYTES = 1024 * 1024 // zeros behind the end: tools fill up to their record size, usually 10 KiB

/** What headers say of the member that follows them. */
interface Announced {
  path?: Uint8Array
  bytes?: number
}

/**
 * Lists the members of a tar archive. Reads headers only: 512 bytes a member, and long names.
 * @throws ServiceError `invalid-image` for anything but regular files and folders, for sizes beyond the file, for names that lead
 *   elsewhere, and where the end is missing; `unsupported` for sparse members and for tar without "ustar"
 */
export async function listTar(file: BlockSource): Promise<Archive> {
  const list = new MemberList('tar')
  let announced: Announced = {}
  let textBytes = 0
  for (let at = 0; ; ) {
    if (file.size - at < BLOCK_BYTES)
      throw refuseArchive('tar', 'truncated', `it ends at byte ${file.size} without two blocks of zeros`, { offset: at })
    const header = await file.read(at, BLOCK_BYTES)
    if (isZero(header)) {
      if (announced.path || announced.bytes !== undefined)
        throw refuseArchive('tar', 'malformed', `a member that was announced is missing at byte ${at}`, { offset: at })
      await assertEnd(file, at)
      return { kind: 'tar', members: list.members }
    }
    assertHeader(header, at)
    list.count(at)
    const type = String.fromCharCode(header[156] as number)
    const bytes = (isFile(type) ? announced.bytes : undefined) ?? readNumber(header.subarray(124, 136), at)
    const start = at + BLOCK_BYTES
    if (bytes > file.size - start) {
      throw refuseArchive(
        'tar',
        'truncated',
        `the entry at byte ${at} has ${bytes} bytes, of which ${file.size - start} are there`,
        { offset: at, bytes },
      )
    }
    if (type === 'x' || type === 'g' || type === 'L') {
      textBytes += bytes
      if (bytes > MAX_TEXT_BYTES || textBytes > MAX_ALL_TEXT_BYTES) {
        const problem = `the header at byte ${at} has ${bytes} bytes, and ${textBytes} with those before; ${MAX_TEXT_BYTES} and ${MAX_ALL_TEXT_BYTES} are the limits`
        throw refuseArchive('tar', 'malformed', problem, { offset: at })
      }
    }
    switch (type) {
      case 'x':
        announced = { ...announced, ...readPax(await file.read(start, bytes), start) }
        break
      case 'g':
        if (Object.keys(readPax(await file.read(start, bytes), start)).length > 0) {
          throw refuseArchive('tar', 'malformed', `the global header at byte ${at} has a path or size for all members`, {
            offset: at,
          })
        }
        break
      case 'L':
        announced = { ...announced, path: withoutEnd(await file.read(start, bytes)) }
        break
      case '5':
        inertName('tar', announced.path ?? nameOf(header), at)
        if (bytes !== 0) throw refuseArchive('tar', 'malformed', `the folder at byte ${at} has a size`, { offset: at })
        announced = {}
        break
      default: {
        const name = inertName('tar', announced.path ?? nameOf(header), at)
        if (!isFile(type)) throw refuseKind(type, name, at)
        if (name === '.') throw refuseArchive('tar', 'hostile-name', `the member at byte ${at} has no name`, { offset: at })
        const open = () => partOf(file, start, bytes)
        list.add({
          name,
          bytes,
          offset: start,
          storedBytes: bytes,
          isPlain: true,
          open,
          stream: (options) => bytesOf(open(), options),
        })
        announced = {}
      }
    }
    at = start + Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES
  }
}

const isFile = (type: string): boolean => type === '0' || type === '\0' || type === '7'
const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)

function refuseKind(type: string, name: string, offset: number): Error {
  const kinds: Readonly<Record<string, string>> = {
    '1': 'a hard link',
    '2': 'a symbolic link',
    '3': 'a device',
    '4': 'a device',
    '6': 'a FIFO',
  }
  const kind = kinds[type]
  if (kind)
    return refuseArchive('tar', 'not-a-file', `${shown(name)}, at byte ${offset}, is ${kind}; only regular files are taken`, {
      offset,
    })
  const what = type === 'S' ? 'a sparse file of GNU tar' : `of the unknown type ${shown(type)}`
  return refuseArchive('tar', 'unsupported', `${shown(name)}, at byte ${offset}, is ${what}; pack it without`, { offset })
}

/** Two blocks of zeros, and nothing but zeros behind them. */
async function assertEnd(file: BlockSource, at: number): Promise<void> {
  const left = file.size - at
  if (left < 2 * BLOCK_BYTES)
    throw refuseArchive('tar', 'truncated', `it ends at byte ${file.size} with one block of zeros; two are the end`)
  if (left > MAX_TRAILER_BYTES)
    throw refuseArchive('tar', 'malformed', `${left} bytes follow its end, at byte ${at}; ${MAX_TRAILER_BYTES} is the limit`, {
      offset: at,
    })
  for await (const bytes of bytesOf(partOf(file, at, left))) {
    if (!isZero(bytes)) throw refuseArchive('tar', 'malformed', `something else follows its end, at byte ${at}`, { offset: at })
  }
}

function assertHeader(header: Uint8Array, at: number): void {
  const magic = latin1(header.subarray(257, 263))
  if (magic !== 'ustar\0' && magic !== 'ustar ')
    throw refuseArchive('tar', 'unsupported', `the header at byte ${at} has no magic "ustar"`, { offset: at })
  let sum = 8 * 0x20 // the field of the sum itself counts as spaces
  for (const [index, byte] of header.entries()) if (index < 148 || index >= 156) sum += byte
  if (readNumber(header.subarray(148, 156), at) !== sum)
    throw refuseArchive('tar', 'malformed', `the checksum of the header at byte ${at} is wrong`, { offset: at })
}

/** Octal digits with spaces around them, up to a NUL; or, with the highest bit set, a number of base 256, as GNU tar has it. */
function readNumber(field: Uint8Array, at: number): number {
  const first = field[0] as number
  const bad = (problem: string) =>
    refuseArchive('tar', 'malformed', `a number in the header at byte ${at} ${problem}`, { offset: at })
  if (first >= 0x80) {
    if (first !== 0x80) throw bad(first >= 0xc0 ? 'is negative' : 'is 2^53 or more')
    let value = 0
    for (const byte of field.subarray(1)) {
      value = value * 256 + byte
      if (!Number.isSafeInteger(value)) throw bad('is 2^53 or more')
    }
    return value
  }
  const digits = /^ *([0-7]*) *$/.exec(latin1(withoutEnd(field)))?.[1]
  if (digits === undefined) throw bad('is not octal')
  return digits === '' ? 0 : Number.parseInt(digits, 8)
}

/** `prefix/name`. GNU tar's own magic has other things where the prefix would be. */
function nameOf(header: Uint8Array): Uint8Array {
  const name = withoutEnd(header.subarray(0, 100))
  const prefix = header[262] === 0 ? withoutEnd(header.subarray(345, 500)) : new Uint8Array()
  return prefix.length > 0 ? Buffer.concat([prefix, Buffer.of(0x2f), name]) : name
}

/** Records of the form `length key=value\n`. All but the path and the size are about what a disk has no use for. */
function readPax(bytes: Uint8Array, start: number): Announced {
  const answer: Announced = {}
  const bad = (at: number, problem: string) =>
    refuseArchive('tar', 'malformed', `the pax record at byte ${start + at} ${problem}`, { offset: start + at })
  for (let at = 0; at < bytes.length; ) {
    const [, digits, key] = /^([1-9]\d{0,5}) ([^=]{1,200})=/.exec(latin1(bytes.subarray(at, at + 210))) ?? []
    const end = at + Number(digits)
    if (digits === undefined || key === undefined || end > bytes.length || bytes[end - 1] !== 0x0a)
      throw bad(at, 'is not "length key=value"')
    const from = at + digits.length + key.length + 2
    if (from > end - 1) throw bad(at, 'is shorter than its key')
    const value = bytes.subarray(from, end - 1)
    if (key.startsWith('GNU.sparse'))
      throw refuseArchive('tar', 'unsupported', `the pax record at byte ${start + at} is of a sparse file; pack it without`)
    if (key === 'path') answer.path = value
    if (key === 'size') {
      const number = latin1(value)
      if (!/^\d{1,16}$/.test(number) || !Number.isSafeInteger(Number(number)))
        throw bad(at, 'has a size that is no number below 2^53')
      answer.bytes = Number(number)
    }
    at = end
  }
  return answer
}

const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
function withoutEnd(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0)
  return end < 0 ? bytes : bytes.subarray(0, end)
}
