import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import type { BlockSource } from '../disk/block/block-source.ts'
import { type FormatWriter, formats, openableFormats, openImage, wrapDisk, writerOf } from '../disk/formats/index.ts'
import type { ImageRecord } from '../store/catalog/catalog.ts'
import type { Lent } from '../store/chunks/chunk-store.ts'
import { findImage } from './find-image.ts'
import type { ImagePorts } from './ports.ts'

/** Bytes of an image for one reader, who closes it. */
export interface Download {
  readonly image: ImageRecord
  /** Bytes of the whole file; null where that is known only when the last of them is made: then it is had from front to back alone. */
  readonly size: number | null
  /** The same for the same bytes, for ever. */
  readonly etag: string
  /** md5 of the whole file, where it is known. */
  readonly md5: string | null
  /** `[offset, offset + length)`, front to back. Of a file without a size: all of it, whatever the range. */
  stream(offset: number, length: number, signal?: AbortSignal): AsyncIterable<Uint8Array>
  /** The same without a copy where that can be: to be given back. */
  lend(offset: number, length: number, signal?: AbortSignal): AsyncIterable<Lent>
  close(): Promise<void>
}

const CONVERTED_READ_BYTES = 1024 * 1024
const LAYOUT_EDITION = 1 // of what our writers make of the same disk: the ETag of a conversion changes with it

export interface WantedFormat {
  /** Glance's name for it. */
  readonly format: string
  /** Absent: the usual one of the format. */
  readonly subformat?: string | undefined
}

/**
 * `GET /v2/images/{id}/file`, also as another format: nothing is converted but the range that is read.
 * @param wanted absent, or the format that the image has: the bytes as they are kept
 * @returns undefined where there are no bytes yet
 * @throws ServiceError `not-found`, `denied`, `unsupported`
 */
export async function download(
  ports: ImagePorts,
  caller: Caller,
  id: string,
  wanted?: WantedFormat,
): Promise<Download | undefined> {
  const { image } = await findImage(ports.catalog, caller, id, 'download')
  const { manifest, size } = image
  if (manifest === null || size === null) return undefined
  const release = ports.readers.hold(manifest)
  if (wanted === undefined || (wanted.format === image.diskFormat && wanted.subformat === undefined)) {
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
    const writer = writerFor(wanted)
    const form = `${wanted.format}-${writer.subformat}`
    const disk = () => diskIn(ports, image, manifest)
    const file = await ('wrap' in writer
      ? ports.converted.get(`${manifest} ${image.diskFormat} ${form}`, async () => {
          const opened = await disk()
          return wrapDisk(wanted.format, opened, writer.subformat).catch(async (error: unknown) => {
            await opened.close()
            throw error
          })
        })
      : disk())
    const stream = (offset: number, length: number, signal?: AbortSignal) =>
      'wrap' in writer ? readThrough(file, offset, length, signal) : writer.pack(file, { signal })
    return {
      image,
      size: 'wrap' in writer ? file.size : null,
      etag: `"${image.checksum ?? manifest.slice(0, 32)}-${form}-${LAYOUT_EDITION}"`,
      md5: null,
      stream,
      lend: async function* (offset, length, signal) {
        for await (const bytes of stream(offset, length, signal)) yield { bytes, giveBack: () => undefined }
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

const written = () => formats.filter(({ writers }) => writers.length > 0).map(({ name }) => name)

function writerFor({ format, subformat }: WantedFormat): FormatWriter {
  if (written().includes(format)) return writerOf(format, subformat)
  throw new ServiceError(
    'unsupported',
    `an image can be had as ${written().join(', ')}; "${format.slice(0, 80)}" is none of them`,
  )
}

/** The disk in the image; to be closed. @throws ServiceError `unsupported` where there is none that can be opened */
async function diskIn({ chunks }: ImagePorts, image: ImageRecord, manifest: string): Promise<BlockSource> {
  const { diskFormat, containerFormat } = image
  if (diskFormat === null || !openableFormats.includes(diskFormat) || containerFormat !== 'bare') {
    throw new ServiceError(
      'unsupported',
      `image ${image.id} is ${containerFormat}/${diskFormat}: what can be converted is ${openableFormats.join(', ')}, in a bare container`,
    )
  }
  const stored = await chunks.open(manifest)
  try {
    return await openImage(diskFormat, stored)
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
