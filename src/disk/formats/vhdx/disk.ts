import type { BlockSource } from '../../block/block-source.ts'
import { mappedDisk } from '../../block/mapped-disk.ts'
import type { OpenOptions } from '../format-driver.ts'
import { BlockMap } from './bat.ts'
import { readHeader, refuse, type VhdxHeader } from './header.ts'
import { type Layout, readLayout } from './layout.ts'
import { replayed } from './log.ts'

/**
 * The guest's disk in a VHDX file, as it is once the log is replayed. Holds at most 6 MiB of table and bitmaps, and what the log
 * writes: 16 MiB at most.
 * @throws ServiceError `invalid-image` | `unsupported`
 */
export async function openDisk(file: BlockSource, given: OpenOptions = {}): Promise<BlockSource> {
  const { whole, layout } = await openFile(file, given)
  const map = new BlockMap(whole, layout)
  return mappedDisk(whole, {
    size: layout.virtualBytes,
    segments: (offset, length) => map.segments(offset, length),
    parent: given.parent,
  })
}

/** The file with its log replayed, and what is in it. */
export interface OpenFile {
  readonly whole: BlockSource
  readonly header: VhdxHeader
  readonly layout: Layout
}

export async function openFile(file: BlockSource, { parent }: OpenOptions): Promise<OpenFile> {
  const header = await readHeader(file)
  const whole = await replayed(file, header)
  const layout = await readLayout(whole, header)
  if (layout.hasParent && !parent) {
    throw refuse(
      'external-reference',
      'the disk is a difference to another file (HasParent), which is never followed; merge it into its parent, or declare the parent',
    )
  }
  if (!layout.hasParent && parent) {
    throw refuse('external-reference', 'a parent is given, and the disk is no difference to another (HasParent is not set)')
  }
  return { whole, header, layout }
}
