import type { WireChunk } from '../store/content/encode-chunks.ts'

/** A file that rests in a store elsewhere, and may be read by its chunks. */
export interface ChunkOrigin {
  /** @throws ServiceError `not-found`, `denied`, `unsupported`; `unavailable` where trying again may help */
  describe(signal: AbortSignal): Promise<OriginFile>
  /** The root of its manifest, as stored; not verified. @throws ServiceError */
  root(signal: AbortSignal): Promise<Uint8Array>
  /** A page of its manifest, as stored; not verified. @throws ServiceError */
  page(page: number, signal: AbortSignal): Promise<Uint8Array>
  /**
   * Chunks by their numbers, none of them zeros, in that order; not verified. What came before it throws is good.
   * @param isVerified the other side is to verify them before it sends them
   * @throws ServiceError as `describe`; `corrupt` where the other side has no good copy of one
   */
  chunks(
    numbers: readonly number[],
    options: { readonly isVerified: boolean; readonly signal: AbortSignal },
  ): AsyncIterable<WireChunk>
  /** In which order a machine reads it when it starts: docs/boot-records.md. Undefined: not known. @throws ServiceError as `describe` */
  bootRecord(signal: AbortSignal): Promise<{ readonly record: Uint8Array; readonly isOwn: boolean } | undefined>
  /** Says so. @throws ServiceError as `describe`; `conflict` where it is known */
  putBootRecord(record: Uint8Array, signal: AbortSignal): Promise<void>
}

export interface OriginFile {
  /** SHA-256 of the root, in lower-case hex: vouches for every byte below it. */
  readonly manifest: string
  /** The disk is in the file, in this format. */
  readonly diskFormat: string
  readonly fileBytes: number
  readonly chunkBytes: number
}
