import { stat } from 'node:fs/promises'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { openFileSource } from '../../disk/block/file-source.ts'

export interface OpenedFile {
  readonly source: BlockSource
  /** Bytes that it takes here; null where it is not here. */
  readonly allocatedBytes: number | null
}

/**
 * A file of this machine. What lies around a disk (compression, archives) is to be taken off here: everything else of these commands
 * sees what comes back.
 * @throws ServiceError `not-found`, `invalid-request`
 */
export async function openLocalFile(path: string): Promise<OpenedFile> {
  const source = await openFileSource(path)
  return { source, allocatedBytes: (await stat(path)).blocks * 512 }
}
