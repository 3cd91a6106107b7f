import { ServiceError } from '../../base/errors.ts'

/**
 * Where bytes rest: key → bytes. Adapters know nothing of hashes, chunks or images.
 * A key is written once: nothing in Imprint's store is ever overwritten.
 */
export interface BlobStore {
  /** The whole blob. @throws ServiceError `not-found` */
  get(key: string): Promise<Uint8Array>
  /**
   * Exactly `length` bytes from `offset`.
   * @param into where an adapter may put them in place of new memory, of `length` bytes: look at which array comes back. It is
   *   the adapter's until the promise settles.
   * @throws ServiceError `not-found`; `corrupt` where the blob ends before
   */
  read(key: string, offset: number, length: number, into?: Uint8Array): Promise<Uint8Array>
  /** Bytes. @throws ServiceError `not-found` */
  size(key: string): Promise<number>
  /** Keys that start with `prefix`, ascending by code unit. */
  list(prefix: string): AsyncIterable<string>
  /**
   * Atomic and durable: when it resolves, the blob survives a power cut; a reader sees no blob or the whole one. `parts` are
   * joined in order; the caller may reuse them once it resolves.
   * @throws ServiceError `conflict` where the key exists with other bytes (the same bytes again are harmless); `no-space`
   */
  put(key: string, parts: readonly Uint8Array[]): Promise<void>
  /** Deleting what is not there succeeds. */
  delete(key: string): Promise<void>
}

const KEY = /^[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*(\/[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*)*$/
const MAX_KEY_BYTES = 512 // half of what S3 takes, so that a prefix of the bucket's owner fits before it

/** @throws ServiceError `invalid-request` for a key that is not `part/part…`, each of `a-z 0-9 _ - .`, starting with a letter or digit */
export function assertKey(key: string): void {
  if (key.length > MAX_KEY_BYTES || !KEY.test(key))
    throw new ServiceError('invalid-request', 'not a blob key', { key: key.slice(0, 80) })
}
