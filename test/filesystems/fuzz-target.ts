/** What the thread of fuzz.ts loads, with the driver and the path of a volume in its address. */
import { existsSync, readFileSync } from 'node:fs'
import { isServiceError, ServiceError } from '../../src/base/errors.ts'
import { KiB } from '../../src/base/units.ts'
import type { BlockSource } from '../../src/disk/block/block-source.ts'
import { checked } from '../../src/disk/block/checked.ts'
import type { FileSystem } from '../../src/disk/guest/filesystems/file-system.ts'
import { FileTree } from '../../src/disk/guest/filesystems/file-tree.ts'
import { fileSystems } from '../../src/disk/guest/filesystems/index.ts'
import { Misuse } from '../fixtures/fuzz/mutant-file.ts'
import { fuzzTarget } from '../fixtures/fuzz/target.ts'

const MAX_NODES = 2000
const MAX_EXTENTS = 20_000
const HEAD_BYTES = 64 * KiB
const TAIL_BYTES = 1000
const SECTOR_BYTES = 512

const { searchParams } = new URL(import.meta.url)
const driver = fileSystems.find(({ name }) => name === searchParams.get('driver'))!
const path = searchParams.get('path')!
const summedBy = searchParams.get('summedBy')
const { summed }: { summed: (volume: BlockSource) => Promise<BlockSource> } = summedBy
  ? await import(summedBy)
  : { summed: async (volume: BlockSource) => volume }
const bytes = new Uint8Array(readFileSync(path))
const chosen: readonly number[] | undefined = existsSync(`${path}.sectors`)
  ? JSON.parse(readFileSync(`${path}.sectors`, 'utf8'))
  : undefined

export const targets = [
  fuzzTarget({
    name: driver.name,
    bases: [
      {
        bytes,
        isLittleEndian: true,
        regions: (chosen ?? sectorsWithData(bytes)).map((sector) => [sector * SECTOR_BYTES, SECTOR_BYTES] as const),
      },
    ],
    leastTaken: 0,
    async use(volume) {
      const files = await driver.open(await summed(volume))
      if (!files) throw new ServiceError('invalid-image', 'it is no file system any more')
      await readAll(files)
    },
  }),
]

function sectorsWithData(volume: Uint8Array): number[] {
  const found: number[] = []
  for (let at = 0; at < volume.length; at += SECTOR_BYTES) {
    if (volume.subarray(at, at + SECTOR_BYTES).some((byte) => byte !== 0)) found.push(at / SECTOR_BYTES)
  }
  return found
}

async function attempt(work: () => Promise<unknown>): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (!isServiceError(error, 'invalid-image') && !isServiceError(error, 'unsupported') && !isServiceError(error, 'too-large'))
      throw error
  }
}

/** Everything that can be asked of a file system. */
async function readAll(files: FileSystem): Promise<void> {
  const tree = new FileTree(files)
  await attempt(async () => {
    for await (const { node } of tree.walk('/', { onDamage: () => {}, maxNodes: MAX_NODES })) {
      await attempt(() => files.attributes(node))
      if (node.kind === 'symlink') await attempt(() => files.readLink(node))
      if (node.kind !== 'file') continue
      await attempt(async () => {
        const data = checked(await files.data(node), 'data')
        await data.read(0, Math.min(data.size, HEAD_BYTES))
        if (data.size > HEAD_BYTES) await data.read(data.size - TAIL_BYTES, TAIL_BYTES)
        let extents = 0
        for await (const _ of data.extents(0, Math.min(data.size, 2 ** 24))) {
          extents += 1
          if (extents > MAX_EXTENTS) throw new Misuse('no end of extents')
        }
      })
    }
  })
  await attempt(() => tree.find('/etc/a/../b/link/to'))
}
