import type { BlockSource } from '../block/block-source.ts'

/** A disk format: a pair of lenses between a file and the disk in it. */
export interface FormatDriver {
  /** Glance `disk_format`. */
  readonly name: string
  /**
   * Shows the guest's disk inside `file`. A reference to another file is refused, never followed: what the disk is a difference to, and
   * what else belongs to it, is given. Closing the disk closes the files.
   * @throws ServiceError `invalid-image` | `unsupported`; so do reads that meet a damaged table. `not-found`: no such snapshot
   */
  open(file: BlockSource, given?: OpenOptions): Promise<BlockSource>
  /**
   * Walks every table of `file` once, which `open` does not: positions inside the file, nothing used twice.
   * Reads tables only, never data. Cost is in proportion to the tables that the file really holds.
   * @returns warnings for people, one sentence each
   * @throws ServiceError `invalid-image` | `unsupported`, naming the first fault
   */
  audit(file: BlockSource, given?: OpenOptions): Promise<readonly string[]>
  /** Whether a disk may be in several files (`parts`); absent: never. */
  readonly hasParts?: boolean
  /**
   * What the headers of `file` say beside the disk's size, for people, in the order of their interest: also of a disk that is a
   * difference, and whose parent is not given. Texts are the file's own. Absent: there is nothing to say.
   * @throws as `open`
   */
  facts?(file: BlockSource): Promise<readonly Fact[]>
  /** The disks of earlier moments in `file`; absent: the format has none. @throws as `open` */
  snapshots?(file: BlockSource): Promise<readonly InternalSnapshot[]>
  /** How a disk can be written, the usual way first; none: the format is read only. */
  readonly writers: readonly FormatWriter[]
}

export interface Fact {
  /** `cluster size` */
  readonly name: string
  readonly value: string | number | boolean
  /** Absent: a count. */
  readonly unit?: 'bytes'
}

export interface OpenOptions {
  /** What the disk is a difference to. Only for a file that says that it has one: others refuse it. It is closed with the disk. */
  readonly parent?: BlockSource | undefined
  /** Id of an internal snapshot; absent: the disk as it is now. */
  readonly snapshot?: string | undefined
  /** The other files of a disk that is in several, by their names without folders. They are closed with the disk. */
  readonly parts?: ReadonlyMap<string, BlockSource> | undefined
}

export interface InternalSnapshot {
  readonly id: string
  readonly name: string
  /** Of the disk then. */
  readonly virtualBytes: number
  /** Milliseconds since 1970. */
  readonly at: number
}

/** The same disk gives the same bytes. */
export type FormatWriter = RangeWriter | StreamWriter

interface Subformat {
  /** What the format's own tools call it, or its words: `monolithicSparse`, `dynamic`, `zstd`. */
  readonly subformat: string
}
export interface RangeWriter extends Subformat {
  /**
   * The file that would hold `disk`, any range of it on demand. Its layout follows from the disk's extents alone. Closing the
   * file closes the disk.
   */
  wrap(disk: BlockSource): Promise<BlockSource>
}
export interface StreamWriter extends Subformat {
  /** The file that holds `disk`, from its first byte to its last: where things are in it is known only when what is before is made. The disk stays open. */
  pack(disk: BlockSource, options?: PackOptions): AsyncIterable<Uint8Array>
  /** Whether its first bytes say how it ends: without `rewrite` everything is made twice, and the first byte comes with the second time. */
  readonly needsRewrite?: boolean
}
export interface PackOptions {
  readonly signal?: AbortSignal | undefined
  /**
   * For a target that can be written at any place: puts bytes where others were that the stream gave before. It is called before the
   * stream ends, and when all bytes before have been taken. The file is the same with it and without.
   */
  readonly rewrite?: ((offset: number, bytes: Uint8Array) => Promise<void>) | undefined
}
