import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import type { BlockSource } from '../disk/block/block-source.ts'
import { type FormatWriter, formats, openableFormats, openImage, wrapDisk, writerOf } from '../disk/formats/index.ts'
import type { ImageRecord } from '../store/catalog/catalog.ts'
import type { Lent } from '../store/chunks/chunk-store.ts'
import { findImage } from './find-image.ts'
import { ovaWriterFor } from './packed/ova-writer.ts'
import type { PackingState, Wait } from './packed/packed-files.ts'
import type { ImagePorts } from './ports.ts'
import { readable } from './protections/protections.ts'

/** Bytes of an image for one reader, who closes it. */
export interface Download {
  readonly image: ImageRecord
  /** Bytes of the whole file; null where that is known only when the last of them is made: then it is had from front to back alone. */
  readonly size: number | null
  /** Where all of it is made before its first byte can be had: to wait for that. Absent: nothing is to be waited for. */
  readonly making?: Making
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

export interface Making {
  /** The same when it is made, with its size; to be closed as well. Who asks for the same meanwhile gets the same. @throws as `PackedFiles.get` */
  wait(wait: Wait): Promise<Download>
  readonly state: PackingState
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
  const seen = { ...image, properties: readable(ports.protections, caller, image.properties) }
  const form = { image: seen, manifest, wanted, release, project: caller.projectId }
  try {
    return await converted(ports, form)
  } catch (error) {
    release()
    throw error
  }
}

interface Form {
  /** As the caller sees it. */
  readonly image: ImageRecord
  readonly manifest: string
  readonly wanted: WantedFormat
  /** Lets the manifest go. */
  readonly release: () => void
  readonly project: string | null
}

async function converted(ports: ImagePorts, { image, manifest, wanted, release, project }: Form): Promise<Download> {
  const writer = writerFor(image, wanted)
  const name = `${wanted.format}-${writer.subformat}`
  const key = `${manifest} ${image.id} ${image.diskFormat} ${name}` // not shared with the same bytes elsewhere: time would tell of them
  const disk = () => diskIn(ports, image, manifest)
  const about = { image, etag: `"${image.checksum ?? manifest.slice(0, 32)}-${name}-${LAYOUT_EDITION}"`, md5: null }
  if ('wrap' in writer) {
    const file = await ports.converted.get(key, async () => {
      const opened = await disk()
      return wrapDisk(wanted.format, opened, writer.subformat).catch(async (error: unknown) => {
        await opened.close()
        throw error
      })
    })
    return { ...about, ...read(file, release) }
  }
  if (!writer.needsRewrite) {
    const source = await disk()
    const stream = (_offset: number, _length: number, signal?: AbortSignal) => writer.pack(source, { signal })
    return { ...about, size: null, ...streamed(stream), close: closing(source, release) }
  }
  assertConvertible(image)
  const packing = {
    owner: project ?? '',
    writer,
    async open() {
      const letGo = ports.readers.hold(manifest) // whoever asked first may go before the others
      const opened = await disk().catch((error: unknown) => {
        letGo()
        throw error
      })
      return { ...opened, close: closing(opened, letGo) }
    },
  }
  const wait = async (how: Wait): Promise<Download> => ({
    ...about,
    ...read(await ports.packed.get(key, packing, how), () => {}),
  })
  if (ports.packed.has(key)) {
    const made = await wait({ signal: new AbortController().signal })
    release()
    return made
  }
  const making = {
    wait,
    get state() {
      return ports.packed.stateOf(key) ?? { isWaiting: true, doneBytes: 0, totalBytes: null }
    },
  }
  const stream = async function* (_offset: number, _length: number, signal = new AbortController().signal) {
    const made = await wait({ signal })
    try {
      yield* made.stream(0, made.size ?? 0, signal)
    } finally {
      await made.close()
    }
  }
  return { ...about, size: null, making, ...streamed(stream), close: async () => release() }
}

type Bytes = Pick<Download, 'size' | 'stream' | 'lend' | 'close'>

/** @param release when it is closed */
const read = (file: BlockSource, release: () => void): Bytes => ({
  size: file.size,
  ...streamed((offset, length, signal) => readThrough(file, offset, length, signal)),
  close: closing(file, release),
})

const streamed = (stream: Download['stream']): Pick<Download, 'stream' | 'lend'> => ({
  stream,
  async *lend(offset, length, signal) {
    for await (const bytes of stream(offset, length, signal)) yield { bytes, giveBack: () => undefined }
  },
})

const closing = (source: BlockSource, release: () => void) => async () => {
  release()
  await source.close()
}

const written = () => [...formats.filter(({ writers }) => writers.length > 0).map(({ name }) => name), OVA]
const OVA = 'ova'

function writerFor(image: ImageRecord, { format, subformat }: WantedFormat): FormatWriter {
  if (format === OVA && subformat === undefined) return ovaWriterFor(image)
  if (format === OVA) throw new ServiceError('unsupported', 'an OVA has no subformats: its disk is a streamOptimized VMDK')
  if (written().includes(format)) return writerOf(format, subformat)
  throw new ServiceError(
    'unsupported',
    `an image can be had as ${written().join(', ')}; "${format.slice(0, 80)}" is none of them`,
  )
}

/** The disk in the image; to be closed. @throws ServiceError `unsupported` where there is none that can be opened */
async function diskIn({ chunks }: ImagePorts, image: ImageRecord, manifest: string): Promise<BlockSource> {
  const diskFormat = assertConvertible(image)
  const stored = await chunks.open(manifest)
  try {
    return await openImage(diskFormat, stored)
  } catch (error) {
    await stored.close()
    throw error
  }
}

/** @returns the format of the file @throws ServiceError `unsupported` */
function assertConvertible({ id, diskFormat, containerFormat }: ImageRecord): string {
  if (diskFormat !== null && openableFormats.includes(diskFormat) && containerFormat === 'bare') return diskFormat
  throw new ServiceError(
    'unsupported',
    `image ${id} is ${containerFormat}/${diskFormat}: what can be converted is ${openableFormats.join(', ')}, in a bare container`,
  )
}

async function* readThrough(file: BlockSource, offset: number, length: number, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const end = offset + length
  for (let at = offset; at < end; at += CONVERTED_READ_BYTES) {
    signal?.throwIfAborted()
    yield await file.read(at, Math.min(CONVERTED_READ_BYTES, end - at))
  }
}
