import type { BlockSource } from './block-source.ts'

/**
 * Changes to a disk. Ranges lie inside it; calls may overlap in time, as a client's requests do. What a settled call changed is
 * what later reads show, to whoever reads.
 */
export interface BlockWriter {
  /** The bytes are the caller's again when the promise settles: they may not be kept. */
  write(offset: number, bytes: Uint8Array): Promise<void>
  /** @param mayPunch whether the range may become a hole; else it must stay allocated */
  writeZeroes(offset: number, length: number, mayPunch: boolean): Promise<void>
  /** A hint: what the range reads as afterwards is the writer's choice. */
  trim(offset: number, length: number): Promise<void>
  /** Settles when all calls that settled before it are durable. */
  flush(): Promise<void>
  /** Whether `writeZeroes` that may punch costs less than writing the zeros. */
  readonly zeroesAreFast: boolean
}

/** A disk that can be written. */
export interface WritableSource extends BlockSource, BlockWriter {}
