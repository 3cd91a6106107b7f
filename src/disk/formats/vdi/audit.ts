import { KiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { OpenOptions } from '../format-driver.ts'
import { FREE, placeOf, ZERO } from './disk.ts'
import { readHeader, refuse } from './header.ts'

const STEP_BYTES = 256 * KiB

/**
 * Walks the block map. Holds a bit for each block of the file, 8 MiB at most.
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function auditFile(file: BlockSource, given: OpenOptions = {}): Promise<readonly string[]> {
  const h = await readHeader(file, given)
  const { blocks, blockBytes, blocksAllocated, blockMapOffset, virtualBytes } = h
  const taken = new Uint8Array(Math.ceil(blocksAllocated / 8))
  let used = 0
  for (let start = 0; start < blocks * 4; start += STEP_BYTES) {
    const part = await file.read(blockMapOffset + start, Math.min(STEP_BYTES, blocks * 4 - start))
    const view = new DataView(part.buffer, part.byteOffset, part.byteLength)
    for (let at = 0; at < part.length; at += 4) {
      const entry = view.getUint32(at, true)
      if (entry === FREE || entry === ZERO) continue
      const diskOffset = ((start + at) / 4) * blockBytes
      if (entry >= blocksAllocated) {
        throw refuse(
          'malformed',
          `the block map has block ${entry} of the file for byte ${diskOffset} of the disk, and cBlocksAllocated is ${blocksAllocated}`,
          { diskOffset, entry, blocksAllocated },
        )
      }
      const bit = 1 << (entry % 8)
      if (taken[entry >>> 3]! & bit) {
        throw refuse('overlap', `block ${entry} of the file, for byte ${diskOffset} of the disk, is in use already`, {
          diskOffset,
          entry,
        })
      }
      taken[entry >>> 3]! |= bit
      used += 1
      placeOf(entry, diskOffset, Math.max(0, Math.min(blockBytes, virtualBytes - diskOffset)), h, file.size)
    }
  }
  if (used === blocksAllocated) return []
  return [`vdi: ${blocksAllocated - used} blocks of the file are used by no part of the disk`]
}
