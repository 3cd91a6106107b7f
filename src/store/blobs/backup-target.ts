import type { BlobStore } from './blob-store.ts'

/** Where a backup goes, held for one run. */
export interface BackupTarget {
  readonly blobs: BlobStore
  /** Says that all is there. Without it, the next run goes on, and people see that this one did not end. */
  complete(): Promise<void>
  close(): Promise<void>
}
