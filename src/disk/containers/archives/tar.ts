import type { BlockSource } from '../../block/block-source.ts'
import { type Archive, inertName, MemberList, refuseArchive, shown } from './archive.ts'
import { bytesOf, partOf } from './part.ts'
import { type Announced, readPax } from './pax.ts'
import { RunBudget, readOldMap, readPaxMap } from './sparse.ts'
import { assertHeader, BLOCK_BYTES, isZero, nameOf, readNumber, withoutEnd } from './tar-header.ts'

/**
 * tar: each member is a header of 512 bytes and its data, filled up to 512; two blocks of zeros end it. Source: POSIX.1-2017, pax,
 * "ustar Interchange Format" and "pax Interchange Format"; GNU tar manual, "Basic Tar Format", for long names and large numbers.
 */
const MAX_NAME_TEXT_BYTES = 64 * 1024 // of a long name, or a header for all members: it is read whole
const MAX_TEXT_BYTES = 4 * 1024 * 1024 // of these and pax headers, which may have the map of a sparse file: each record is looked at
const MAX_TRAILER_BYTES = 1024 * 1024 // zeros behind the end: tools fill up to their record size, usually 10 KiB

/**
 * Lists the members of a tar archive. Reads headers only: 512 bytes a member, long names, and the maps of sparse files, which are read
 * where they lie, holes as holes.
 * @throws ServiceError `invalid-image` for anything but regular files and folders, for sizes beyond the file, for names that lead
 *   elsewhere, for maps whose runs overlap, descend or lead beyond their file, and where the end is missing; `unsupported` for tar
 *   without "ustar" and unknown versions of sparse files
 */
export async function listTar(file: BlockSource): Promise<Archive> {
  const list = new MemberList('tar')
  const budget = new RunBudget()
  let announced: Announced = {}
  let textBytes = 0
  for (let at = 0; ; ) {
    if (file.size - at < BLOCK_BYTES)
      throw refuseArchive('tar', 'truncated', `it ends at byte ${file.size} without two blocks of zeros`, { offset: at })
    const header = await file.read(at, BLOCK_BYTES)
    if (isZero(header)) {
      if (announced.path || announced.sparse || announced.bytes !== undefined)
        throw refuseArchive('tar', 'malformed', `a member that was announced is missing at byte ${at}`, { offset: at })
      await assertEnd(file, at)
      return { kind: 'tar', members: list.members }
    }
    assertHeader(header, at)
    list.count(at)
    const type = String.fromCharCode(header[156] as number)
    const old = type === 'S' ? await oldMap(file, header, announced, at, budget) : undefined
    const bytes = (isFile(type) ? announced.bytes : undefined) ?? readNumber(header.subarray(124, 136), at)
    const start = at + BLOCK_BYTES + (old?.mapBytes ?? 0)
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
      const max = type === 'x' ? MAX_TEXT_BYTES : MAX_NAME_TEXT_BYTES
      if (bytes > max || textBytes > MAX_TEXT_BYTES) {
        const problem = `the header at byte ${at} has ${bytes} bytes, and ${textBytes} with those before; ${max} and ${MAX_TEXT_BYTES} are the limits`
        throw refuseArchive('tar', 'malformed', problem, { offset: at })
      }
    }
    switch (type) {
      case 'x':
        announced = { ...announced, ...readPax(await file.read(start, bytes), start) }
        break
      case 'g':
        if (Object.keys(readPax(await file.read(start, bytes), start)).length > 0) {
          const problem = `the global header at byte ${at} has a path, size or map for all members`
          throw refuseArchive('tar', 'malformed', problem, { offset: at })
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
        const name = inertName('tar', announced.sparse?.name ?? announced.path ?? nameOf(header), at)
        if (!isFile(type)) throw refuseKind(type, name, at)
        if (name === '.') throw refuseArchive('tar', 'hostile-name', `the member at byte ${at} has no name`, { offset: at })
        const stored = partOf(file, start, bytes)
        const sparse = announced.sparse ? await readPaxMap(stored, announced.sparse, at, budget) : undefined
        const { map } = old ?? sparse ?? {}
        const before = sparse?.mapBytes ?? 0
        if (map && map.storedBytes !== bytes - before) {
          const problem = `the map of the sparse file at byte ${at} has ${map.storedBytes} bytes of data, where ${bytes - before} are stored`
          throw refuseArchive('tar', 'malformed', problem, { offset: at })
        }
        const data = before === 0 ? stored : partOf(file, start + before, bytes - before)
        const open = () => (map ? map.open(data) : partOf(file, start, bytes))
        list.add({
          name,
          bytes: map?.bytes ?? bytes,
          offset: start + before,
          storedBytes: bytes - before,
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

const isFile = (type: string): boolean => type === '0' || type === '\0' || type === '7' || type === 'S'

/** Only GNU tar's own headers have a map; in those of POSIX a name may lie there. */
function oldMap(file: BlockSource, header: Uint8Array, announced: Announced, at: number, budget: RunBudget) {
  if (header[262] === 0 || announced.sparse)
    throw refuseArchive('tar', 'malformed', `the sparse file at byte ${at} has no header of GNU tar, or two maps`, { offset: at })
  return readOldMap(file, header, at, budget)
}

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
  const problem = `${shown(name)}, at byte ${offset}, is of the unknown type ${shown(type)}; pack it without`
  return refuseArchive('tar', 'unsupported', problem, { offset })
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
