import assert from 'node:assert/strict'
import { ServiceError } from '../../src/base/errors.ts'
import { KiB } from '../../src/base/units.ts'
import type { BlockSource } from '../../src/disk/block/block-source.ts'
import { checked } from '../../src/disk/block/checked.ts'
import type { FileSystem, FileSystemDriver } from '../../src/disk/guest/filesystems/file-system.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { numbersOf } from './aged-tree.ts'

/** What one mutant may cost: far more than the volume unchanged does. Beyond it a reader goes round in circles. */
const MAX_READS = 20_000
const MAX_READ_BYTES = 256 * 2 ** 20
const MAX_NODES = 2000
const HEAD_BYTES = 64 * KiB
const SECTOR_BYTES = 512

export interface FuzzWish {
  /** A whole volume; changed in place while a mutant is read, and restored. */
  readonly volume: Uint8Array
  readonly runs: number
  readonly seed?: number
  /** Sectors that are changed; default: those that are not zeros. */
  readonly sectors?: readonly number[]
}

/**
 * Pokes at a volume and reads everything of it: all answers are files, or typed errors; no read is outside the volume, and none goes on
 * for ever. @returns how many mutants still opened
 */
export async function fuzzFileSystem(driver: FileSystemDriver, { volume, runs, seed = 1, sectors }: FuzzWish): Promise<number> {
  const random = numbersOf(seed)
  const below = (end: number) => Math.floor(random() * end)
  const places = sectors ?? sectorsWithData(volume)
  let opened = 0
  for (let run = 0; run < runs; run += 1) {
    const undo: [at: number, byte: number][] = []
    const poke = (at: number, byte: number) => {
      undo.push([at, volume[at]!])
      volume[at] = byte & 0xff
    }
    for (let count = 1 + below(4); count > 0; count -= 1) {
      const at = places[below(places.length)]! * SECTOR_BYTES + below(SECTOR_BYTES)
      const kind = below(5)
      if (kind === 0)
        for (let index = 0, many = 1 + below(16); index < many && at + index < volume.length; index += 1)
          poke(at + index, below(256))
      else if (kind === 1) poke(at, volume[at]! ^ (1 << below(8)))
      else {
        const width = [1, 2, 4, 8][below(4)]!
        const start = at - (at % width)
        if (start + width > volume.length) continue
        const value = boundaryValue(volume[start]!, width, random)
        const isBig = below(2) === 0
        for (let index = 0; index < width; index += 1) {
          poke(start + (isBig ? width - 1 - index : index), Number((value >> BigInt(index * 8)) & 0xffn))
        }
      }
    }
    try {
      if (await readAll(driver, volume)) opened += 1
    } catch (error) {
      const said = error instanceof Error ? (error.stack ?? error.message) : String(error)
      const pokes = undo.map(([at, before]) => `${at}: ${before} → ${volume[at]}`).join(', ')
      assert.fail(`mutant ${run} of seed ${seed} (${pokes}): ${said}`)
    } finally {
      for (const [at, byte] of undo.reverse()) volume[at] = byte
    }
  }
  return opened
}

/** At the edges of what fits, or near what was there. */
function boundaryValue(low: number, width: number, random: () => number): bigint {
  const bits = BigInt(width * 8)
  const most = (1n << bits) - 1n
  const near = BigInt(low)
  const values = [
    0n,
    1n,
    2n,
    most,
    most - 1n,
    most >> 1n,
    (most >> 1n) + 1n,
    1n << BigInt(Math.floor(random() * width * 8)),
    near + 1n,
    near === 0n ? 0n : near - 1n,
  ]
  return values[Math.floor(random() * values.length)]! & most
}

function sectorsWithData(volume: Uint8Array): number[] {
  const found: number[] = []
  for (let sector = 0; sector * SECTOR_BYTES < volume.length; sector += 1) {
    if (volume.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES).some((byte) => byte !== 0)) found.push(sector)
  }
  return found
}

/** Everything that can be asked of a file system. Whether it opened. */
async function readAll(driver: FileSystemDriver, volume: Uint8Array): Promise<boolean> {
  const source = counted(volume)
  let files: FileSystem | undefined
  try {
    files = await driver.open(source)
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error
  }
  if (!files) return false
  const attempt = async (work: () => Promise<unknown>) => {
    try {
      await work()
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error
    }
  }
  const tree = new FileTree(files)
  await attempt(async () => {
    for await (const { node } of tree.walk('/', { onDamage: () => {}, maxNodes: MAX_NODES })) {
      await attempt(() => files.attributes(node))
      if (node.kind === 'symlink') await attempt(() => files.readLink(node))
      if (node.kind !== 'file') continue
      await attempt(async () => {
        const data = checked(await files.data(node), 'data')
        await data.read(0, Math.min(data.size, HEAD_BYTES))
        if (data.size > HEAD_BYTES) await data.read(data.size - 1000, 1000)
        for await (const extent of data.extents(0, Math.min(data.size, 2 ** 24))) assert.ok(extent.length > 0)
      })
    }
  })
  await attempt(() => tree.find('/etc/a/../b/link/to'))
  return true
}

/** The volume, which counts what is read of it. */
function counted(volume: Uint8Array): BlockSource {
  let [reads, bytes] = [0, 0]
  return {
    size: volume.length,
    async read(offset, length) {
      reads += 1
      bytes += length
      if (!(Number.isSafeInteger(offset) && length >= 0 && offset >= 0 && offset + length <= volume.length)) {
        throw new Error(`a read outside the volume: ${length} bytes at ${offset}, of ${volume.length}`)
      }
      if (reads > MAX_READS || bytes > MAX_READ_BYTES) throw new Error(`${reads} reads of ${bytes} bytes: it does not end`)
      return volume.subarray(offset, offset + length)
    },
    async *extents(offset, length) {
      if (length > 0) yield { offset, length, kind: 'data' }
    },
    async close() {},
  }
}
