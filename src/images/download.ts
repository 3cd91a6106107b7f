import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import type { BlockSource } from '../disk/block/block-source.ts'
import { formats, openImage, wrapDisk } from '../disk/formats/index.ts'
import type { ImageRecord } from '../store/catalog/catalog.ts'
import type { Lent } from '../store/chunks/chunk-store.ts'
import { findImage } from './find-image.ts'
import type { ImagePorts } from './ports.ts'

/** Bytes of an image for one reader, who closes it. */
export interface Download {
  readonly image: ImageRecord
  /** Bytes of the whole file. */
  readonly size: number
  /** The same for the same bytes, for ever. */
  readonly etag: string
  /** md5 of the whole file, where it is known. */
  readonly md5: string | null
  /** `[offset, offset + length)`, front to back. */
  stream(offset: number, length: number, signal?: AbortSignal): AsyncIterable<Uint8Array>
  /** The same without a copy where that can be: to be given back. */
  lend(offset: number, length: number, signal?: AbortSignal): AsyncIterable<Lent>
  close(): Promise<void>
}

const CONVERTED_READ_BYTES = 1024 * 1024
const LAYOUT_EDITION = 1 // of what our writers make of the same disk: the ETag of a conversion changes with it

/**
 * `GET /v2/images/{id}/file`, also as another format: nothing is converted but the range that is read.
 * @param format absent: the bytes as they are kept
 * @returns undefined where there are no bytes yet
 * @throws ServiceError `not-found`, `denied`, `unsupported`
 */
export async function download(ports: ImagePorts, caller: Caller, id: string, format?: string): Promise<Download | undefined> {
  const { image } = await findImage(ports.catalog, caller, id, 'download')
  const { manifest, size } = image
  if (manifest === null || size === null) return undefined
  const release = ports.readers.hold(manifest)
  const isAsKept = format === undefined || format === image.diskFormat
  if (isAsKept) {
    return {
      image,
      size,
      etag: `"${image.checksum ?? manifest.slice(0, 32)}"`,
      md5: image.checksum,
      stream: (offset, length, signal) => ports.chunks.stream(manifest, offset, length, signal),
      lend: (offset, length, signal) => ports.chunks.lend(manifest, offset, length, signal),
      close: async () => release(),
    }
  }
  try {
    const file = await ports.converted.get(`${manifest} ${image.diskFormat} ${format}`, () =>
      convertedFile(ports, image, manifest, format),
    )
    return {
      image,
      size: file.size,
      etag: `"${image.checksum ?? manifest.slice(0, 32)}-${format}-${LAYOUT_EDITION}"`,
      md5: null,
      stream: (offset, length, signal) => readThrough(file, offset, length, signal),
      lend: async function* (offset, length, signal) {
        for await (const bytes of readThrough(file, offset, length, signal)) yield { bytes, giveBack: () => undefined }
      },
      close: async () => {
        release()
        await file.close()
      },
    }
  } catch (error) {
    release()
    throw error
  }
}

async function convertedFile({ chunks }: ImagePorts, image: ImageRecord, manifest: string, format: string): Promise<BlockSource> {
  const known = formats.map(({ name }) => name)
  const { diskFormat } = image
  if (!known.includes(format)) {
    throw new ServiceError('unsupported', `an image can be had as ${known.join(' or ')}; "${format.slice(0, 80)}" is neither`)
  }
  if (diskFormat === null || !known.includes(diskFormat) || image.containerFormat !== 'bare') {
    throw new ServiceError(
      'unsupported',
      `image ${image.id} is ${image.containerFormat}/${diskFormat}: only ${known.join(' and ')} in a bare container can be converted`,
    )
  }
  const stored = await chunks.open(manifest)
  try {
    return await wrapDisk(format, await openImage(diskFormat, stored))
  } catch (error) {
    await stored.close()
    throw error
  }
}

async function* readThrough(file: BlockSource, offset: number, length: number, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const end = offset + length
  for (let at = offset; at < end; at += CONVERTED_READ_BYTES) {
    signal?.throwIfAborted()
    yield await file.read(at, Math.min(CONVERTED_READ_BYTES, end - at))
  }
}
