import type { BlockSource } from '../../block/block-source.ts'
import type { Fact } from '../format-driver.ts'
import { readBackingName, readHeader } from './header.ts'

/** @throws ServiceError `invalid-image` | `unsupported` */
export async function factsOf(file: BlockSource): Promise<readonly Fact[]> {
  const backing = await readBackingName(file)
  const { clusterBytes, tableBytes, needsCheck } = await readHeader(file, backing === undefined ? {} : { parent: file })
  return [
    { name: 'cluster size', value: clusterBytes, unit: 'bytes' },
    { name: 'table size', value: tableBytes, unit: 'bytes' },
    { name: 'needs check', value: needsCheck },
    ...(backing === undefined ? [] : [{ name: 'backing file', value: backing }]),
  ]
}
