import type { BlockSource } from '../block/block-source.ts'

/** A disk format: a pair of lenses between a file and the disk in it. */
export interface FormatDriver {
  /** Glance `disk_format`. */
  readonly name: string
  /** Shows the guest's disk inside `file`. A reference to another file is refused, never followed. @throws ServiceError `invalid-image` | `unsupported` */
  open(file: BlockSource): Promise<BlockSource>
  /** The file that would hold `disk`, any range of it on demand. Its layout follows from the disk's extents alone: the same disk gives the same bytes. */
  wrap(disk: BlockSource): Promise<BlockSource>
}
