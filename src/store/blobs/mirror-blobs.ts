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
 * Holds two blobs in memory.
 * @throws ServiceError `conflict` before anything is removed where `to` holds a blob under `first`, or at the top, with other
 *   bytes: it is the mirror of another store, or of this one before it was put back from an older mirror; `cancelled`
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
      if (key.startsWith(first) || !key.includes('/')) await assertSame(from, to, key)
      report.kept += 1
      return true
    }
    const bytes = await bytesOrNone(from, key)
    if (!bytes) return false
    await to.put(key, [bytes])
    report.copied += 1
    report.copiedBytes += bytes.length
    options.onProgress?.(report.copied)
    return true
  }
  for await (const key of to.list('')) if (!key.includes('/')) await assertSame(from, to, key)
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

async function assertSame(from: BlobStore, to: BlobStore, key: string): Promise<void> {
  const [ours, theirs] = await Promise.all([bytesOrNone(from, key), to.get(key)])
  if (!ours || Buffer.compare(ours, theirs) === 0) return
  throw new ServiceError('conflict', `the backup is of another store, or of another past of this one: choose another folder`, {
    key,
  })
}

async function bytesOrNone(store: BlobStore, key: string): Promise<Uint8Array | undefined> {
  try {
    return await store.get(key)
  } catch (error) {
    if (isServiceError(error, 'not-found')) return undefined
    throw error
  }
}
