import type { BlockSource } from '../../block/block-source.ts'
import type { Fact } from '../format-driver.ts'
import { readHeader, SECTOR_BYTES } from './header.ts'

/** @throws ServiceError `invalid-image` | `unsupported` */
export async function factsOf(file: BlockSource): Promise<readonly Fact[]> {
  const { blockBytes, unitBytes, isInUse } = await readHeader(file, {})
  return [
    { name: 'kind', value: unitBytes === SECTOR_BYTES && blockBytes !== SECTOR_BYTES ? 'WithoutFreeSpace' : 'WithouFreSpacExt' },
    { name: 'cluster size', value: blockBytes, unit: 'bytes' },
    { name: 'in use', value: isInUse },
  ]
}
