import type { BlockSource } from '../disk/block/block-source.ts'
import type { Anatomy } from '../disk/guest/anatomy.ts'
import type { Catalog } from '../store/catalog/catalog.ts'
import type { ChunkStore } from '../store/chunks/chunk-store.ts'
import type { ConvertedFiles } from './converted-files.ts'
import type { JobRunner } from './jobs.ts'
import type { ManifestReaders } from './manifest-readers.ts'
import type { PackedFiles } from './packed/packed-files.ts'
import type { PropertyProtections } from './protections/protections.ts'

/** What the use cases of images stand on. `openImages` (service.ts) makes it from the adapters. */
export interface ImagePorts {
  readonly catalog: Catalog
  readonly chunks: ChunkStore
  readonly examine: Examine
  readonly inspect: Inspect
  readonly limits: Limits
  readonly protections: PropertyProtections
  readonly source: ImportSource
  readonly jobs: JobRunner
  readonly readers: ManifestReaders
  readonly converted: ConvertedFiles
  readonly packed: PackedFiles
  readonly settings: ImageSettings
  /** Milliseconds since 1970. */
  readonly now: () => number
}

export interface ImageSettings {
  /** Largest file that is taken in, whichever way it comes. */
  readonly maxImageBytes: number
  /** For projects that have no limit of their own; −1: without limit. */
  readonly defaultLimits: Readonly<Record<QuotaName, number>>
}

/** Bytes are counted in MiB here, as the limits of OpenStack count them. */
export const quotaNames = ['image_size_total', 'image_stage_total', 'image_count_total', 'image_count_uploading'] as const
export type QuotaName = (typeof quotaNames)[number]

export interface Limits {
  /** The project's limit, or the one registered for everybody. −1: without limit; undefined: nobody set one. */
  of(projectId: string, name: string): Promise<number | undefined>
}

/**
 * Reads a whole file as the format its owner declared, in a worker with a memory limit and a deadline. It closes `file`.
 * @param declared what its owner said it is
 * @throws ServiceError `invalid-image` | `unsupported`, with a reason for the image's owner
 */
export type Examine = (file: BlockSource, declared: Declared, signal?: AbortSignal) => Promise<Examined>
export interface Declared {
  /** Glance `disk_format`. */
  readonly diskFormat: string
  /** Glance `container_format`: in some, a wrapper around the disk is expected. */
  readonly containerFormat: string
  /** Bytes of the disk that this one is a difference to; absent: it must stand alone. */
  readonly parentBytes?: number
  /** What is around the disk is examined, and not the disk. `member`: the one that is meant. */
  readonly package?: { readonly member: string | null }
}
export interface Examined {
  /** Bytes of the disk in the file; null for formats that are recognised only. */
  readonly virtualBytes: number | null
  /** For people, one sentence each. */
  readonly warnings: readonly string[]
}

/**
 * Looks into the disk in a file that was examined, in a worker with a memory limit and a deadline. It closes `file`.
 * @param format Glance `disk_format` of it
 * @throws ServiceError `invalid-image` | `unsupported` where that cannot be done
 */
export type Inspect = (file: BlockSource, format: string, signal?: AbortSignal) => Promise<Anatomy>

/** Where `web-download` gets its bytes. */
export interface ImportSource {
  /** Refuses an address that could never be fetched, before anything is begun. @throws ServiceError `invalid-request` */
  check(uri: string): void
  /**
   * The bytes of the file, front to back; the body ends in an error where the source breaks or `maxBytes` are exceeded.
   * @throws ServiceError `invalid-request`, `too-large`, `unavailable`, `cancelled`
   */
  fetch(uri: string, options: { readonly maxBytes: number; readonly signal: AbortSignal }): AsyncIterable<Uint8Array>
}
