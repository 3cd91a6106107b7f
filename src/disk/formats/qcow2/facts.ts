import { KiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { Fact } from '../format-driver.ts'
import { header, headerV3, readHeader } from './header.ts'

const COMPATIBLE_LAZY_REFCOUNTS = 1

/** @throws ServiceError `invalid-image` | `unsupported` */
export async function factsOf(file: BlockSource): Promise<readonly Fact[]> {
  const h = await readHeader(file, 'any')
  const bytes = await file.read(0, Math.min(file.size, 4 * KiB))
  const { backingNameOffset, backingNameBytes } = header.parse(bytes)
  const facts: Fact[] = [
    { name: 'version', value: h.version },
    { name: 'cluster size', value: h.clusterBytes, unit: 'bytes' },
  ]
  if (h.version === 3) {
    const { compatibleLow, refcountOrder } = headerV3.parse(bytes)
    facts.push(
      { name: 'compression type', value: h.compression },
      { name: 'lazy refcounts', value: (compatibleLow & COMPATIBLE_LAZY_REFCOUNTS) !== 0 },
      { name: 'refcount bits', value: 2 ** refcountOrder },
      { name: 'extended L2', value: h.extendedL2 },
    )
  }
  if (h.snapshots > 0) facts.push({ name: 'internal snapshots', value: h.snapshots })
  if (backingNameOffset > 0) {
    const name = await file.read(backingNameOffset, backingNameBytes)
    facts.push({ name: 'backing file', value: new TextDecoder().decode(name) })
  }
  return facts
}
