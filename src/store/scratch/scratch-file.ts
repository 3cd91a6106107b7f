import { type FileHandle, open, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { bytes, struct, u32be, u64be } from '../../base/struct.ts'
import { BlockMap, isBlockMap, MAP_PAGE_BYTES, mapBytes } from '../../disk/filters/block-map.ts'
import { blocksOfDisk, COW_BLOCK_BYTES, type Overlay } from '../../disk/filters/cow.ts'

/** First page of the map's file; docs/scratch-format.md. */
const header = struct('scratch map header', {
  magic: bytes(0, 8),
  version: u32be(8),
  blockBytes: u32be(12),
  diskBytes: u64be(16),
})
const MAGIC = Buffer.from('IMPSCRTC')
const VERSION = 1

/**
 * Makes the files of a scratch disk that nobody has written yet. It is there for good when this settles.
 * @param folder empty
 */
export async function createScratchFile(folder: string, diskBytes: number): Promise<void> {
  const first = new Uint8Array(MAP_PAGE_BYTES)
  first.set(header.build({ magic: MAGIC, version: VERSION, blockBytes: COW_BLOCK_BYTES, diskBytes }))
  for (const [name, bytes] of [
    ['disk', new Uint8Array(0)],
    ['map', first],
  ] as const) {
    await writeFile(join(folder, name), bytes, { flag: 'wx', mode: 0o600, flush: true })
  }
  for (const path of [folder, dirname(folder)]) await syncFolder(path)
}

/**
 * The written blocks of a scratch disk, in a folder of its own: `disk`, sparse, holds each block where it lies on the disk; `map`
 * says which blocks those are. The map's pages are written after the bytes are durable, so a page on the disk never names a
 * block that is not there whole, whether it is old, new, or each of its sectors something of both.
 * @throws ServiceError `corrupt`, also where the files are gone; errors of the system pass through
 */
export async function openScratchFile(folder: string, diskBytes: number): Promise<Overlay> {
  const opened: FileHandle[] = []
  const file = async (name: string): Promise<FileHandle> => {
    const handle = await open(join(folder, name), 'r+')
    opened.push(handle)
    return handle
  }
  try {
    const [disk, mapFile] = [await file('disk'), await file('map')]
    return new ScratchFile(disk, mapFile, await readMap(mapFile, diskBytes))
  } catch (error) {
    for (const handle of opened) await handle.close()
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    const message = 'the files of a scratch disk are gone, as after a restore from a backup: end the export, and make another'
    throw new ServiceError('corrupt', message, {}, { cause: error })
  }
}

class ScratchFile implements Overlay {
  readonly map: BlockMap
  readonly #disk: FileHandle
  readonly #mapFile: FileHandle
  #hasFailed = false

  constructor(disk: FileHandle, mapFile: FileHandle, map: BlockMap) {
    this.#disk = disk
    this.#mapFile = mapFile
    this.map = map
  }

  async read(offset: number, length: number, into: Uint8Array = Buffer.allocUnsafeSlow(length)): Promise<Uint8Array> {
    for (let done = 0; done < length; ) {
      const { bytesRead } = await this.#disk.read(into, done, length - done, offset + done)
      if (bytesRead === 0) throw new ServiceError('corrupt', 'a scratch disk lacks bytes that its map names', { offset })
      done += bytesRead
    }
    return into
  }

  async write(offset: number, parts: readonly Uint8Array[]): Promise<void> {
    let at = offset
    for (const part of parts) {
      for (let done = 0; done < part.length; ) {
        const { bytesWritten } = await this.#disk.write(part, done, part.length - done, at + done)
        done += bytesWritten
      }
      at += part.length
    }
  }

  async sync(): Promise<void> {
    // what a failed sync left behind may look written and not be: it is never tried again on the same file
    if (this.#hasFailed) throw new ServiceError('unavailable', 'a scratch disk could not be made durable before: export it anew')
    const pages = this.map.takeChanged()
    try {
      await this.#disk.datasync()
      failpoint('scratch:bytes-synced')
      for (const { page, bytes: states } of pages) await writeAll(this.#mapFile, states, (page + 1) * MAP_PAGE_BYTES)
      if (pages.length > 0) await this.#mapFile.datasync()
    } catch (error) {
      this.#hasFailed = true
      throw error
    }
  }

  async close(): Promise<void> {
    await this.#disk.close()
    await this.#mapFile.close()
  }
}

/** @throws ServiceError `corrupt` */
async function readMap(file: FileHandle, diskBytes: number): Promise<BlockMap> {
  const blocks = blocksOfDisk(diskBytes)
  const found = await readUpTo(file, MAP_PAGE_BYTES + mapBytes(blocks))
  if (found.length < MAP_PAGE_BYTES) throw damaged()
  const { magic, ...shape } = header.parse(found)
  const states = new Uint8Array(mapBytes(blocks)) // pages beyond the end of the file were never written
  states.set(found.subarray(MAP_PAGE_BYTES))
  const isRight =
    MAGIC.equals(magic) &&
    shape.version === VERSION &&
    shape.blockBytes === COW_BLOCK_BYTES &&
    shape.diskBytes === diskBytes &&
    isBlockMap(states)
  if (!isRight) throw damaged()
  return new BlockMap(blocks, states)
}

const damaged = (): ServiceError =>
  new ServiceError('corrupt', 'the map of a scratch disk is damaged: end the export, and make another')

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

async function readUpTo(file: FileHandle, most: number): Promise<Buffer> {
  const buffer = Buffer.alloc(Math.min(most, (await file.stat()).size))
  let done = 0
  while (done < buffer.length) {
    const { bytesRead } = await file.read(buffer, done, buffer.length - done, done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return buffer.subarray(0, done)
}

async function writeAll(file: FileHandle, from: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < from.length; ) {
    const { bytesWritten } = await file.write(from, done, from.length - done, offset + done)
    done += bytesWritten
  }
}
