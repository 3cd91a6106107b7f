import type { BlockSource } from '../block/block-source.ts'

/** A disk format: a pair of lenses between a file and the disk in it. */
export interface FormatDriver {
  /** Glance `disk_format`. */
  readonly name: string
  /**
   * Shows the guest's disk inside `file`. A reference to another file is refused, never followed. Closing the disk closes the file.
   * @throws ServiceError `invalid-image` | `unsupported`; so do reads that meet a damaged table
   */
  open(file: BlockSource): Promise<BlockSource>
  /**
   * Walks every table of `file` once, which `open` does not: positions inside the file, nothing used twice.
   * Reads tables only, never data. Cost is in proportion to the tables that the file really holds.
   * @returns warnings for people, one sentence each
   * @throws ServiceError `invalid-image` | `unsupported`, naming the first fault
   */
  audit(file: BlockSource): Promise<readonly string[]>
  /**
   * The file that would hold `disk`, any range of it on demand. Its layout follows from the disk's extents alone: the same
   * disk gives the same bytes. Closing the file closes the disk.
   */
  wrap(disk: BlockSource): Promise<BlockSource>
}
