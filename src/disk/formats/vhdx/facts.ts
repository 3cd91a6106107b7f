import type { BlockSource } from '../../block/block-source.ts'
import type { Fact } from '../format-driver.ts'
import { readHeader } from './header.ts'
import { readLayout } from './layout.ts'
import { replayed } from './log.ts'

/** @throws ServiceError `invalid-image` | `unsupported` */
export async function factsOf(file: BlockSource): Promise<readonly Fact[]> {
  const header = await readHeader(file)
  const layout = await readLayout(await replayed(file, header), header)
  const { blockBytes, logicalSectorBytes, physicalSectorBytes, hasParent, leavesBlocksAllocated, diskId } = layout
  return [
    { name: 'type', value: hasParent ? 'differencing' : leavesBlocksAllocated ? 'fixed' : 'dynamic' },
    { name: 'block size', value: blockBytes, unit: 'bytes' },
    { name: 'logical sector size', value: logicalSectorBytes, unit: 'bytes' },
    { name: 'physical sector size', value: physicalSectorBytes, unit: 'bytes' },
    { name: 'uuid', value: uuidOf(diskId) },
    { name: 'log to be replayed', value: header.logGuid !== undefined },
  ]
}

/** The first three fields are little-endian. */
function uuidOf(id: Uint8Array): string {
  const hex = (...at: readonly number[]) => at.map((index) => id[index]!.toString(16).padStart(2, '0')).join('')
  return `${hex(3, 2, 1, 0)}-${hex(5, 4)}-${hex(7, 6)}-${hex(8, 9)}-${hex(10, 11, 12, 13, 14, 15)}`
}
