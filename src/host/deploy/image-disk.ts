import type { BlockSource } from '../../disk/block/block-source.ts'
import { isZero } from '../../disk/block/zero.ts'
import { openImage, plainFormats } from '../../disk/formats/index.ts'
import { DIGEST_BYTES, digestAt, isZeroAt, sha256 } from '../../store/content/digests.ts'
import { PAGE_ENTRIES } from '../../store/content/manifest-format.ts'
import { RemoteFile, type RemoteFileOptions } from '../remote-file.ts'

/** What a chunk of a disk is to be: zeros, the bytes with this SHA-256, or what only reading it tells. */
export type Wanted = Uint8Array | 'zeros' | 'unread'

/** A disk that knows much of what is in it without bringing it here. */
export interface ImageDisk extends Pick<BlockSource, 'size' | 'read' | 'close'> {
  readonly chunkBytes: number
  /** Of each chunk in the range, which begins with a chunk. @throws ServiceError as `read` */
  wanted(offset: number, length: number): Promise<readonly Wanted[]>
}

/**
 * The disk of an image in a store elsewhere. Of a plain file the layout tells the digests; the disk in any other is known where it is
 * zeros, and otherwise when it was read.
 * @throws ServiceError as the origin; `corrupt`, `invalid-image`
 */
export async function openImageDisk(options: RemoteFileOptions): Promise<ImageDisk> {
  const file = await RemoteFile.open(options)
  const { diskFormat, chunkBytes } = file.facts
  if (plainFormats.includes(diskFormat)) return plainDisk(file)
  try {
    return diskOf(await openImage(diskFormat, file), chunkBytes)
  } catch (error) {
    await file.close()
    throw error
  }
}

function plainDisk(file: RemoteFile): ImageDisk {
  const { chunkBytes } = file.facts
  return {
    size: file.size,
    chunkBytes,
    read: (offset, length, into) => file.read(offset, length, into),
    async wanted(offset, length) {
      const first = offset / chunkBytes
      const count = Math.ceil(length / chunkBytes)
      const digests = Array.from({ length: count }, (_, index) => file.digestOf(first + index))
      return (await Promise.all(digests)).map((digest) => digest ?? 'zeros')
    },
    close: () => file.close(),
  }
}

/** Remembers the digests of what is read, 0.05 % of it, so that it need not be brought again to be verified. */
export function diskOf(disk: BlockSource, chunkBytes: number): ImageDisk {
  const learnt = new Map<number, Uint8Array>()
  const learn = (chunk: number, bytes: Uint8Array): void => {
    if (isZero(bytes)) return
    const page = Math.floor(chunk / PAGE_ENTRIES)
    const digests = learnt.get(page) ?? new Uint8Array(PAGE_ENTRIES * DIGEST_BYTES)
    learnt.set(page, digests)
    digests.set(sha256(bytes), (chunk % PAGE_ENTRIES) * DIGEST_BYTES)
  }
  const known = (chunk: number): Wanted => {
    const digests = learnt.get(Math.floor(chunk / PAGE_ENTRIES))
    return digests && !isZeroAt(digests, chunk % PAGE_ENTRIES) ? digestAt(digests, chunk % PAGE_ENTRIES) : 'unread'
  }
  return {
    size: disk.size,
    chunkBytes,
    async read(offset, length, into) {
      const bytes = await disk.read(offset, length, into)
      for (let at = (chunkBytes - (offset % chunkBytes)) % chunkBytes; at < length; at += chunkBytes) {
        const isWhole = at + chunkBytes <= length || offset + length === disk.size
        if (isWhole) learn((offset + at) / chunkBytes, bytes.subarray(at, at + chunkBytes))
      }
      return bytes
    },
    async wanted(offset, length) {
      const first = offset / chunkBytes
      const count = Math.ceil(length / chunkBytes)
      const hasData = new Uint8Array(count)
      for await (const run of disk.extents(offset, length)) {
        if (run.kind !== 'data') continue
        const end = Math.ceil((run.offset + run.length) / chunkBytes) - first
        hasData.fill(1, Math.floor(run.offset / chunkBytes) - first, end)
      }
      return Array.from(hasData, (data, index) => (data ? known(first + index) : 'zeros'))
    },
    close: () => disk.close(),
  }
}
