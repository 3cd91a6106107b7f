import { constants, type FileHandle, open, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { bytes, struct, u32be, u64be } from '../../base/struct.ts'
import { BlockMap, isBlockMap, MAP_PAGE_BYTES, mapBytes } from '../../disk/filters/block-map.ts'
import { blocksOfDisk, COW_BLOCK_BYTES, type Overlay } from '../../disk/filters/cow.ts'
import { LiveMap, readLive, writeAll } from './live-map.ts'

/** First page of the map's file; docs/scratch-format.md. */
const header = struct('scratch map header', {
  magic: bytes(0, 8),
  version: u32be(8),
  blockBytes: u32be(12),
  diskBytes: u64be(16),
})
const MAGIC = Buffer.from('IMPSCRTC')
const VERSION = 1

/** A scratch disk has one layer until it is sealed; then further ones lie on it, each in files of its own. */
const filesOf = (layer: number): Readonly<Record<'disk' | 'map' | 'live', string>> =>
  layer === 0 ? { disk: 'disk', map: 'map', live: 'live' } : { disk: `disk.${layer}`, map: `map.${layer}`, live: `live.${layer}` }
const MAP_NAME = /^map(?:\.([1-9]\d{0,8}))?$/

/** The layers whose files are in the folder, the lowest first. A layer is there when its map is. */
export async function layersIn(folder: string): Promise<readonly number[]> {
  const names = await readdir(folder)
  const layers = names.flatMap((name) => {
    const found = MAP_NAME.exec(name)
    return found ? [Number(found[1] ?? 0)] : []
  })
  return layers.sort((a, b) => a - b)
}

/** Makes the files of a layer that nobody has written yet. It is there for good when this settles; cut short it is not there. */
export async function createLayer(folder: string, layer: number, diskBytes: number): Promise<void> {
  const first = new Uint8Array(MAP_PAGE_BYTES)
  first.set(header.build({ magic: MAGIC, version: VERSION, blockBytes: COW_BLOCK_BYTES, diskBytes }))
  const { disk, map, live } = filesOf(layer)
  const unfinished = join(folder, `${map}.new`)
  await writeFile(join(folder, disk), new Uint8Array(0), { mode: 0o600, flush: true })
  await rm(join(folder, live), { force: true }) // of a layer of this number that went: it would speak for this one
  await writeFile(unfinished, first, { mode: 0o600, flush: true })
  await syncFolder(folder) // a map without its disk would be damage
  await rename(unfinished, join(folder, map))
  for (const path of [folder, dirname(folder)]) await syncFolder(path)
}

/** The map goes first, for good: the bytes without it are nothing. */
export async function deleteLayer(folder: string, layer: number): Promise<void> {
  const { disk, map, live } = filesOf(layer)
  await rm(join(folder, map), { force: true })
  await syncFolder(folder)
  for (const name of [disk, live]) await rm(join(folder, name), { force: true })
}

/**
 * The written blocks of a layer: `disk`, sparse, holds each block where it lies on the disk; `map`
 * says which blocks those are. The map's pages are written after the bytes are durable, so a page on the disk never names a
 * block that is not there whole, whether it is old, new, or each of its sectors something of both.
 * @param diskBytes as many as when the layer was made, or more
 * @param bootId of the system that runs: live-map.ts says what for
 * @throws ServiceError `corrupt`, also where the files are gone; errors of the system pass through
 */
export async function openLayer(folder: string, layer: number, diskBytes: number, bootId: string): Promise<Overlay> {
  const opened: FileHandle[] = []
  const file = async (name: string, flags: string | number = 'r+'): Promise<FileHandle> => {
    const handle = await open(join(folder, name), flags, 0o600)
    opened.push(handle)
    return handle
  }
  const names = filesOf(layer)
  try {
    const [disk, mapFile] = [await file(names.disk), await file(names.map)]
    const map = await readMap(mapFile, diskBytes)
    const live = await file(names.live, constants.O_RDWR | constants.O_CREAT)
    const isTakenUp = await takeUpLive(live, bootId, map)
    return new ScratchFile(disk, mapFile, live, new LiveMap(live, map, bootId, isTakenUp), map)
  } catch (error) {
    for (const handle of opened) await handle.close()
    throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? filesAreGone(error) : error
  }
}

export const filesAreGone = (cause?: unknown): ServiceError =>
  new ServiceError(
    'corrupt',
    'the files of a scratch disk are gone, as after a restore from a backup: end the export, and make another',
    {},
    { cause },
  )

class ScratchFile implements Overlay {
  readonly map: BlockMap
  readonly #disk: FileHandle
  readonly #mapFile: FileHandle
  readonly #liveFile: FileHandle
  readonly #live: LiveMap
  #hasFailed = false

  constructor(disk: FileHandle, mapFile: FileHandle, liveFile: FileHandle, live: LiveMap, map: BlockMap) {
    this.#disk = disk
    this.#mapFile = mapFile
    this.#liveFile = liveFile
    this.#live = live
    this.map = map
  }

  note(first: number, end: number, isNew: boolean): Promise<void> {
    return this.#live.note(first, end, isNew)
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
      await this.#live.catchUp() // a map that is behind the durable one would take back what is being answered
    } catch (error) {
      this.#hasFailed = true
      // it names bytes that may not be there: whoever opens the layer again goes by what was durable before
      await this.#live.invalidate().catch(() => this.#liveFile.truncate(0))
      throw error
    }
  }

  async close(): Promise<void> {
    try {
      await this.#live.invalidate() // what it said is durable, or counts for nothing
    } finally {
      for (const file of [this.#disk, this.#mapFile, this.#liveFile]) await file.close()
    }
  }
}

/** What a process of before answered and had not flushed is taken up; it counts as changed, so the next flush makes it durable. @returns whether there is any */
async function takeUpLive(file: FileHandle, bootId: string, map: BlockMap): Promise<boolean> {
  const states = await readLive(file, bootId, mapBytes(map.blocks))
  if (!states) return false
  if (!isBlockMap(states)) throw damaged()
  map.takeOver(states)
  return true
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
    mayBecome(shape.diskBytes, diskBytes) &&
    isBlockMap(states)
  if (!isRight) throw damaged()
  return new BlockMap(blocks, states)
}

/** A disk may grow by whole blocks: of what is behind its former end the map's pages say nothing yet, which is what is true. */
const mayBecome = (madeBytes: number, diskBytes: number): boolean =>
  madeBytes === diskBytes || (madeBytes < diskBytes && madeBytes % COW_BLOCK_BYTES === 0)

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
