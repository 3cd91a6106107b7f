import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { ServiceError } from '../../base/errors.ts'
import { KiB, MiB } from '../../base/units.ts'
import type { BlockSource, Extent } from './block-source.ts'
import { merged } from './run-merger.ts'
import { isZero } from './zero.ts'

/** Where a file has data: `[start, end)` in bytes, ascending. */
type DataMap = readonly (readonly [start: number, end: number])[]

/** Nor is a pipe waited for until somebody writes to it. */
const NO_LINK = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
const SCAN_BYTES = 4 * MiB
const SCAN_GRAIN_BYTES = 64 * KiB
/** Bounds what a file of a million fragments may cost in memory; beyond it the file is read instead. */
const MAX_MAP_BYTES = 16 * MiB

/** `lseek(2)` with SEEK_DATA (3) and SEEK_HOLE (4), which Node does not offer; perl-base is essential on Debian and Ubuntu. */
const SEEK_SCRIPT =
  'my $p = 0; while (1) { my $d = sysseek(STDIN, $p, 3); last unless defined $d; ' +
  'my $h = sysseek(STDIN, $d, 4); exit 1 unless defined $h; printf "%d %d\\n", $d, $h; $p = $h }'

/**
 * A local file. Its holes are learnt from the file system where that can be asked (4 GiB of holes: 5 ms), else by reading
 * and comparing with zeros (6 s). The file must not change while it is open.
 * @param options.followLinks false for a path whose last part somebody else may put there
 * @param options.isDeviceWanted whether it may be a block device, all of which is data
 * @throws ServiceError `not-found` when there is no such file, `invalid-request` when it is not a regular file
 */
export async function openFileSource(path: string, { followLinks = true, isDeviceWanted = false } = {}): Promise<BlockSource> {
  const handle = await open(path, followLinks ? constants.O_RDONLY : NO_LINK).catch((error: NodeJS.ErrnoException) => {
    const why = error.code === 'ENOENT' ? 'does not exist' : `cannot be opened (${error.code})`
    throw new ServiceError(error.code === 'ENOENT' ? 'not-found' : 'invalid-request', `the file "${path}" ${why}`)
  })
  try {
    return await sourceOf(handle, path, isDeviceWanted)
  } catch (error) {
    await handle.close()
    throw error
  }
}

async function sourceOf(handle: FileHandle, path: string, isDeviceWanted: boolean): Promise<BlockSource> {
  const stat = await handle.stat()
  const isDevice = isDeviceWanted && stat.isBlockDevice()
  if (!stat.isFile() && !isDevice)
    throw new ServiceError('invalid-request', `"${path}" is not a regular file: name the image file itself`)
  const size = isDevice ? await endOf(handle, path) : stat.size
  /** 512 is the unit of st_blocks, whatever the file system's own block is. */
  const isSparse = !isDevice && stat.blocks * 512 < size
  let map: Promise<DataMap | undefined> | undefined

  const read = async (offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> => {
    const answer = into ?? Buffer.allocUnsafeSlow(length)
    for (let done = 0; done < length; ) {
      const { bytesRead } = await handle.read(answer, done, length - done, offset + done)
      if (bytesRead === 0) throw new ServiceError('conflict', `the file "${path}" became shorter while it was read: try again`)
      done += bytesRead
    }
    return answer
  }

  return {
    size,
    read,
    async *extents(offset, length) {
      if (length === 0) return
      if (!isSparse) {
        yield { offset, length, kind: 'data' }
        return
      }
      map ??= dataMap(handle, size)
      const known = await map
      yield* known ? extentsOf(known, offset, length) : merged(scanned(read, offset, length))
    },
    close: () => handle.close(),
  }
}

/** Bytes of a block device, which `fstat(2)` does not tell: `lseek(2)` with SEEK_END (2). */
async function endOf(handle: FileHandle, path: string): Promise<number> {
  const said = await ofPerl('print sysseek(STDIN, 0, 2)', handle)
  const bytes = said === undefined || !/^\d/.test(said) ? Number.NaN : Number(said === '0 but true' ? 0 : said)
  if (Number.isSafeInteger(bytes)) return bytes
  throw new ServiceError('unsupported', `the size of the block device "${path}" cannot be learnt: it takes perl`)
}

/** What a script prints that has the file as its standard input; undefined where it fails, or prints too much. */
function ofPerl(script: string, handle: FileHandle): Promise<string | undefined> {
  return new Promise((answer) => {
    const child = spawn('perl', ['-e', script], { stdio: [handle.fd, 'pipe', 'ignore'] })
    const parts: Buffer[] = []
    let bytes = 0
    child.stdout?.on('data', (part: Buffer) => {
      bytes += part.length
      if (bytes > MAX_MAP_BYTES) child.kill()
      else parts.push(part)
    })
    child.on('error', () => answer(undefined))
    child.on('close', (status) => answer(status === 0 ? Buffer.concat(parts).toString('latin1') : undefined))
  })
}

/** Asks the file system for the data of an open file. Undefined where it cannot be asked. */
async function dataMap(handle: FileHandle, size: number): Promise<DataMap | undefined> {
  if ((await handle.stat()).blocks === 0) return []
  const text = await ofPerl(SEEK_SCRIPT, handle)
  if (text === undefined) return undefined
  const map: [number, number][] = []
  for (const line of text.split('\n')) {
    if (line === '') continue
    const [start = Number.NaN, end = Number.NaN] = line.split(' ').map(Number)
    const follows = start >= (map.at(-1)?.[1] ?? 0) && end > start
    if (!follows) return undefined
    if (start < size) map.push([start, Math.min(end, size)])
  }
  return map
}

function* extentsOf(map: DataMap, offset: number, length: number): Generator<Extent> {
  let at = offset
  const end = offset + length
  let [low, high] = [0, map.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (map[middle]![1] > offset) high = middle
    else low = middle + 1
  }
  for (let index = low; index < map.length && at < end; index += 1) {
    const [start, stop] = map[index]!
    if (start > at) {
      const to = Math.min(start, end)
      yield { offset: at, length: to - at, kind: 'hole' }
      at = to
    }
    const to = Math.min(stop, end)
    if (to > at) yield { offset: at, length: to - at, kind: 'data' }
    at = Math.max(at, to)
  }
  if (at < end) yield { offset: at, length: end - at, kind: 'hole' }
}

/** Holes found the slow way. The grain lies at multiples of 64 KiB from the start of the file. */
async function* scanned(read: BlockSource['read'], offset: number, length: number): AsyncGenerator<Extent> {
  const end = offset + length
  for (let at = offset; at < end; ) {
    const stop = Math.min(end, Math.floor(at / SCAN_BYTES) * SCAN_BYTES + SCAN_BYTES)
    const bytes = await read(at, stop - at)
    for (let from = at; from < stop; ) {
      const to = Math.min(stop, Math.floor(from / SCAN_GRAIN_BYTES) * SCAN_GRAIN_BYTES + SCAN_GRAIN_BYTES)
      yield { offset: from, length: to - from, kind: isZero(bytes.subarray(from - at, to - at)) ? 'zero' : 'data' }
      from = to
    }
    at = stop
  }
}
