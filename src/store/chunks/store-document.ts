import { isServiceError, ServiceError } from '../../base/errors.ts'
import { KiB, MiB } from '../../base/units.ts'
import type { BlobStore } from '../blobs/blob-store.ts'

const KEY = 'store.json'
const VERSION = 1
export const DEFAULT_CHUNK_BYTES = 64 * KiB // docs/decisions/chunk-size.md
export const MAX_CHUNK_BYTES = MiB

const isChunkSize = (bytes: unknown): bytes is number =>
  typeof bytes === 'number' && Number.isInteger(Math.log2(bytes)) && bytes >= 4 * KiB && bytes <= MAX_CHUNK_BYTES

/**
 * The chunk size of the store in `blobs`; a store without a document is new and gets one.
 * @param wanted for a new store; of an existing one it must be the same, where given
 * @throws ServiceError `unsupported`, `corrupt`, `invalid-request`
 */
export async function openStoreDocument(blobs: BlobStore, wanted?: number): Promise<number> {
  const bytes = await blobs.get(KEY).catch((error) => {
    if (isServiceError(error, 'not-found')) return undefined
    throw error
  })
  if (bytes === undefined) return makeStoreDocument(blobs, wanted ?? DEFAULT_CHUNK_BYTES)
  const { format, version, chunkBytes } = parse(bytes)
  if (format !== 'imprint-store') throw new ServiceError('corrupt', 'store.json is not the document of an Imprint store.')
  if (typeof version !== 'number' || version > VERSION)
    throw new ServiceError('unsupported', 'This store was made by a later version of Imprint: use that version.', {
      version: String(version),
    })
  if (!isChunkSize(chunkBytes)) throw new ServiceError('corrupt', 'store.json gives no chunk size that a store can have.')
  if (wanted !== undefined && wanted !== chunkBytes)
    throw new ServiceError('invalid-request', 'A store keeps the chunk size that it was made with.', { wanted, chunkBytes })
  return chunkBytes
}

async function makeStoreDocument(blobs: BlobStore, chunkBytes: number): Promise<number> {
  if (!isChunkSize(chunkBytes))
    throw new ServiceError('invalid-request', 'A chunk is a power of two from 4 KiB to 1 MiB.', { chunkBytes })
  const document = { format: 'imprint-store', version: VERSION, chunkBytes, madeAt: new Date().toISOString() }
  await blobs.put(KEY, [new TextEncoder().encode(`${JSON.stringify(document)}\n`)])
  return chunkBytes
}

function parse(bytes: Uint8Array): { format?: unknown; version?: unknown; chunkBytes?: unknown } {
  try {
    const document: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
    if (typeof document === 'object' && document !== null) return document
  } catch {
    // falls through: what is no JSON gets the same answer
  }
  throw new ServiceError('corrupt', 'store.json is damaged: it is no JSON object. Restore it from a backup.')
}
