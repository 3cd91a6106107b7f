import { createHash } from 'node:crypto'
import { crc32c } from '../../../../base/crc32c.ts'

/** `csum_type` of the superblock. Source: Linux include/uapi/linux/btrfs_tree.h. */
const TYPE = { crc32c: 0, xxhash64: 1, sha256: 2, blake2b: 3 } as const
export const CHECKSUM_TYPES: readonly number[] = Object.values(TYPE)
/** A superblock and a node begin with room for the longest checksum; the rest is what it is of. */
const CHECKSUM_BYTES = 32

/**
 * Whether a superblock or a node has the checksum that it bears. crc32c and SHA-256 are looked at; the two others cost more than
 * they are worth here, and hold always.
 */
export function isIntact(block: Uint8Array, type: number): boolean {
  const covered = block.subarray(CHECKSUM_BYTES)
  if (type === TYPE.crc32c) return new DataView(block.buffer, block.byteOffset).getUint32(0, true) === crc32c(covered)
  if (type === TYPE.sha256) return createHash('sha256').update(covered).digest().equals(block.subarray(0, CHECKSUM_BYTES))
  return true
}
