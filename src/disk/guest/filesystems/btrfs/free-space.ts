import { ServiceError } from '../../../../base/errors.ts'
import { struct, u64le } from '../../../../base/struct.ts'
import type { ChunkMap } from './chunks.ts'
import { itemKey, TREE, TYPES } from './keys.ts'
import type { Subvolumes } from './subvolumes.ts'
import type { Superblock } from './superblock.ts'
import type { Trees } from './trees.ts'

/** Source: Linux include/uapi/linux/btrfs_tree.h, btrfs_block_group_item. */
const record = struct('btrfs block group', { usedBytes: u64le(0) })
/** Of a volume with more, it is not worth the reads. */
const MAX_CHUNKS = 1024
const MAX_COPIED_CHUNKS = 64

/** Bytes that nothing uses: the superblock counts what is there twice once, so the use of chunks with two copies is looked up. Null: it cannot be told, or only with many reads. */
export async function freeBytesOf(
  { raw }: Superblock,
  trees: Trees,
  chunks: ChunkMap,
  subvolumes: Subvolumes,
): Promise<number | null> {
  try {
    const groups = (await subvolumes.find(TREE.blockGroups)) ?? (await subvolumes.get(TREE.extents))
    let free = raw.totalBytes - raw.usedBytes
    let [count, copied] = [0, 0]
    for await (const { start, end, copies } of chunks.all()) {
      count += 1
      if (count > MAX_CHUNKS) return null
      if (copies.length < 2) continue
      copied += 1
      if (copied > MAX_COPIED_CHUNKS) return null
      const group = await trees.find(groups, itemKey(start, TYPES.blockGroup, end - start))
      if (!group) return null
      free -= record.parse(group.data).usedBytes * (copies.length - 1)
    }
    return free >= 0 ? free : null
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error
    return null
  }
}
