import { ServiceError } from '../../base/errors.ts'
import { DIGEST_BYTES } from './digests.ts'

/** Manifests, byte by byte: docs/store-format.md, section "Manifest". */
export const PAGE_ENTRIES = 1024
/** A root of 8 MiB: 16 TiB of file in 64 KiB chunks. Bounds what reading a manifest can cost. */
export const MAX_PAGES = 262_144
const PAGE_HEADER_BYTES = 16
const ROOT_HEADER_BYTES = 40
export const MAX_ROOT_BYTES = ROOT_HEADER_BYTES + MAX_PAGES * DIGEST_BYTES
export const MAX_PAGE_BYTES = PAGE_HEADER_BYTES + PAGE_ENTRIES * DIGEST_BYTES
const VERSION = 1

export interface Root {
  readonly chunkBytes: number
  readonly fileBytes: number
  readonly allocatedBytes: number
  /** Digest of each page, 32 bytes each; zeros: a page of zeros. */
  readonly pages: Uint8Array
}

export const chunksOf = (fileBytes: number, chunkBytes: number): number => Math.ceil(fileBytes / chunkBytes)
export const pagesOf = (fileBytes: number, chunkBytes: number): number =>
  Math.ceil(chunksOf(fileBytes, chunkBytes) / PAGE_ENTRIES)
export const maxFileBytes = (chunkBytes: number): number => MAX_PAGES * PAGE_ENTRIES * chunkBytes

/** @param entries digests, 32 bytes each */
export function encodePage(entries: Uint8Array): Uint8Array {
  const bytes = Buffer.alloc(PAGE_HEADER_BYTES + entries.length)
  bytes.write('IMPRpage', 0, 'latin1')
  bytes.writeUInt16LE(VERSION, 8)
  bytes.writeUInt32LE(entries.length / DIGEST_BYTES, 12)
  bytes.set(entries, PAGE_HEADER_BYTES)
  return bytes
}

export function encodeRoot({ chunkBytes, fileBytes, allocatedBytes, pages }: Root): Uint8Array {
  const bytes = Buffer.alloc(ROOT_HEADER_BYTES + pages.length)
  bytes.write('IMPRroot', 0, 'latin1')
  bytes.writeUInt16LE(VERSION, 8)
  bytes.writeUInt32LE(chunkBytes, 12)
  bytes.writeBigUInt64LE(BigInt(fileBytes), 16)
  bytes.writeBigUInt64LE(BigInt(allocatedBytes), 24)
  bytes.writeUInt32LE(pages.length / DIGEST_BYTES, 32)
  bytes.set(pages, ROOT_HEADER_BYTES)
  return bytes
}

/** @returns the page's entries, 32 bytes each. @throws ServiceError `corrupt` */
export function parsePage(bytes: Uint8Array, entries: number): Uint8Array {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const check = makeCheck('page')
  check(view.length >= PAGE_HEADER_BYTES && view.toString('latin1', 0, 8) === 'IMPRpage', 'wrong magic')
  check(view.readUInt16LE(8) === VERSION, 'unknown version')
  check(view.readUInt32LE(12) === entries, 'not as many entries as its place in the file demands')
  check(view.length === PAGE_HEADER_BYTES + entries * DIGEST_BYTES, 'wrong length')
  return bytes.subarray(PAGE_HEADER_BYTES)
}

/** @throws ServiceError `corrupt` */
export function parseRoot(bytes: Uint8Array, chunkBytes: number): Root {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const check = makeCheck('root')
  check(view.length >= ROOT_HEADER_BYTES && view.toString('latin1', 0, 8) === 'IMPRroot', 'wrong magic')
  check(view.readUInt16LE(8) === VERSION, 'unknown version')
  check(view.readUInt32LE(12) === chunkBytes, 'its chunk size is not the one of this store')
  const [fileBytes, allocatedBytes] = [Number(view.readBigUInt64LE(16)), Number(view.readBigUInt64LE(24))]
  check(fileBytes <= maxFileBytes(chunkBytes) && allocatedBytes <= fileBytes, 'sizes out of range')
  const pages = view.readUInt32LE(32)
  check(pages === pagesOf(fileBytes, chunkBytes), 'not as many pages as its size demands')
  check(view.length === ROOT_HEADER_BYTES + pages * DIGEST_BYTES, 'wrong length')
  return { chunkBytes, fileBytes, allocatedBytes, pages: bytes.subarray(ROOT_HEADER_BYTES) }
}

const makeCheck = (what: string) => (holds: boolean, problem: string) => {
  if (!holds) throw new ServiceError('corrupt', `The ${what} of a manifest is damaged: ${problem}.`)
}
