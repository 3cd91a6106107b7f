import { isServiceError, ServiceError } from '../../base/errors.ts'
import type { BlobStore } from './blob-store.ts'

export interface MirrorReport {
  readonly copied: number
  readonly copiedBytes: number
  readonly kept: number
  readonly removed: number
}

/**
 * Makes `to` hold what `from` holds: a backup, and the next one moves only what is new, for no blob ever changes. Blobs under
 * `first` go first: what they refer to was durable before them, so it is copied after them and nothing they name is missing.
 * The caller keeps the collector from running meanwhile. At the end `to` loses what `from` no longer had at the beginning.
 * Holds one blob in memory.
 */
export async function mirrorBlobs(
  from: BlobStore,
  to: BlobStore,
  first: string,
  options: { readonly signal?: AbortSignal; readonly onProgress?: (copied: number) => void } = {},
): Promise<MirrorReport> {
  const report = { copied: 0, copiedBytes: 0, kept: 0, removed: 0 }
  const seen = new Set<string>()
  /** @returns whether the blob was there to copy */
  const copy = async (key: string): Promise<boolean> => {
    if (options.signal?.aborted)
      throw new ServiceError('cancelled', 'the backup was cancelled; started again, it goes on from here')
    seen.add(key)
    if (await holds(to, key)) {
      report.kept += 1
      return true
    }
    const bytes = await from.get(key).catch((error: unknown) => {
      if (isServiceError(error, 'not-found')) return undefined
      throw error
    })
    if (!bytes) return false
    await to.put(key, [bytes])
    report.copied += 1
    report.copiedBytes += bytes.length
    options.onProgress?.(report.copied)
    return true
  }
  // A blob that went away since it was listed was merged into one that came since: the list is taken again.
  for (let whole = false; !whole; ) {
    whole = true
    seen.clear()
    for await (const key of from.list(first)) whole = (await copy(key)) && whole
  }
  for await (const key of from.list('')) if (!key.startsWith(first)) await copy(key)
  for await (const key of to.list('')) {
    if (seen.has(key)) continue
    await to.delete(key)
    report.removed += 1
  }
  return report
}

async function holds(store: BlobStore, key: string): Promise<boolean> {
  try {
    await store.size(key)
    return true
  } catch (error) {
    if (isServiceError(error, 'not-found')) return false
    throw error
  }
}
