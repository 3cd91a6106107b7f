import { mkdir, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { type Answer, cancelled, strange } from '../client/http-client.ts'
import type { Image, ImageClient, WantedBytes } from '../client/image-client.ts'
import { PartFile } from '../part-file.ts'
import type { TransferState } from '../progress.ts'

export interface FetchOptions {
  readonly images: ImageClient
  readonly image: Image
  readonly path: string
  /** `FORMAT` or `FORMAT:SUBFORMAT`; undefined: as it is kept. */
  readonly format: string | undefined
  readonly force: boolean
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}
export interface Fetched {
  readonly bytes: number
  readonly resumedBytes: number
  /** Which digest the bytes agree with; null where none is on record. */
  readonly verified: string | null
}

/** Says which bytes a `.part` file holds, so that it is never continued with bytes of another image or format. */
interface PartNote {
  readonly imageId: string
  readonly format: string | null
  readonly etag: string | null
  readonly updatedAt: string
}

const TRIES = 8
const LEAST_PAUSE_MS = 100

/**
 * Downloads into `path`.part, going on where an earlier run stopped, verifies the digest and renames.
 * @throws ServiceError `conflict` where `path` exists; `corrupt` where the bytes are not those of the image
 */
export async function fetchImage(options: FetchOptions): Promise<Fetched> {
  const { image, format, force } = options
  const path = resolve(options.path)
  if (image.sizeBytes === null) {
    throw new ServiceError(
      'conflict',
      `${image.name ?? image.id} is ${image.status} and has no bytes yet; wait until it is active`,
    )
  }
  if (!force && (await stat(path).catch(() => undefined))) {
    throw new ServiceError('conflict', `${options.path} exists; choose another name, or replace it with --force`)
  }
  await mkdir(dirname(path), { recursive: true })
  const part = await PartFile.open(`${path}.part`, noteOf(image, format))
  try {
    const expected = await downloadAll(part, options)
    if (part.bytes !== expected) throw new ServiceError('corrupt', `got ${part.bytes} bytes of ${expected}; try again`)
    const verified = await verify(part, image, format)
    await part.finish(path)
    return { bytes: part.bytes, resumedBytes: part.resumedBytes, verified }
  } finally {
    await part.close()
  }
}

const noteOf = (image: Image, format: string | undefined): PartNote => ({
  imageId: image.id,
  format: format ?? null,
  etag: image.hashValue ?? image.checksum,
  updatedAt: image.hashValue || image.checksum ? '' : image.updatedAt,
})

/** Asks again from where it stopped, as long as each attempt brings bytes. @returns bytes of the whole file */
async function downloadAll(part: PartFile, { images, image, format, signal, onProgress }: FetchOptions): Promise<number> {
  for (let failures = 0; ; ) {
    const before = part.bytes
    try {
      return await downloadOnce(part, images, image, format, signal, onProgress)
    } catch (error) {
      if (signal.aborted) throw cancelled()
      failures = part.bytes > before ? 1 : failures + 1
      if (!isServiceError(error, 'unavailable') || failures >= TRIES) throw error
      await new Promise((go) => setTimeout(go, 200 * 2 ** failures))
    }
  }
}

async function downloadOnce(
  part: PartFile,
  images: ImageClient,
  image: Image,
  format: string | undefined,
  signal: AbortSignal,
  onProgress: FetchOptions['onProgress'],
): Promise<number> {
  const known = format === undefined ? image.sizeBytes : null
  if (known !== null && part.bytes === known) return known
  if (format !== undefined && part.etag === null) await part.truncate() // of which edition of the file they are, nobody said
  const ask = () => whenMade(images, image, { from: fromOf(part), format, signal }, onProgress)
  const answer = await ask().catch(async (error: unknown) => {
    if (!isServiceError(error, 'range-not-satisfiable') || part.bytes === 0) throw error
    await part.truncate()
    return ask()
  })
  if (answer.status === 200) await part.beginWith(strongEtag(answer.headers.etag))
  const total = totalOf(answer.headers, part.bytes)
  if (known !== null && total !== known) throw strange(`it offers ${total} bytes of an image that has ${known}`)
  const start = part.bytes
  try {
    for await (const bytes of answer.body as AsyncIterable<Buffer>) {
      if (total !== null && part.bytes + bytes.length > total) throw strange('it sends more bytes than it said')
      await part.append(bytes)
      onProgress({ phase: 'Downloading', doneBytes: part.bytes, totalBytes: total, movedBytes: part.bytes - start })
    }
  } catch (error) {
    if (isServiceError(error)) throw error
    throw new ServiceError(
      'unavailable',
      `the download broke off: ${(error as Error).message}; give the same command again to go on`,
    )
  } finally {
    answer.body.destroy()
  }
  if (total === null) return part.bytes // HTTP itself tells its end
  if (part.bytes < total) throw new ServiceError('unavailable', 'the download ended early; give the same command again to go on')
  return total
}

const fromOf = ({ bytes, etag }: PartFile) => (bytes > 0 ? { offset: bytes, etag } : undefined)
const strongEtag = (etag: string | undefined): string | null =>
  etag !== undefined && /^"[\x21\x23-\x7e]{1,200}"$/.test(etag) ? etag : null

/** Asks until the file is made, which may take minutes for a large disk: the service says how far it is. */
async function whenMade(
  images: ImageClient,
  { id }: Image,
  wanted: WantedBytes,
  onProgress: FetchOptions['onProgress'],
): Promise<Answer> {
  for (;;) {
    const answer = await images.download(id, wanted)
    if (answer.status !== 202) return answer
    const { isWaiting, ...done } = await images.makingFrom(answer)
    onProgress({ phase: isWaiting ? 'Waiting for its turn' : 'Compressing', ...done, movedBytes: 0, counts: {} })
    await pause(LEAST_PAUSE_MS, undefined, { signal: wanted.signal }).catch(() => undefined) // the service waits as well, as it is asked to
  }
}

/** Null: what is made while it is sent, from its first byte on, is as long as it turns out to be. */
function totalOf(headers: Readonly<Record<string, string>>, offset: number): number | null {
  const ranged = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers['content-range'] ?? '')
  if (ranged && Number(ranged[1]) !== offset) throw strange('it answers with another range than was asked')
  if (!ranged && /\bchunked\b/i.test(headers['transfer-encoding'] ?? '')) return null
  const total = Number(ranged ? ranged[2] : headers['content-length'])
  if (!Number.isSafeInteger(total)) throw strange('it does not say how long the image is')
  return total
}

async function verify(part: PartFile, image: Image, format: string | undefined): Promise<string | null> {
  if (format !== undefined) return null
  const [algorithm, expected] =
    image.hashValue && image.hashAlgorithm ? [image.hashAlgorithm, image.hashValue] : ['md5', image.checksum]
  if (!expected) return null
  const got = await part.digest(algorithm)
  if (got === expected.toLowerCase()) return algorithm
  await part.discard()
  throw new ServiceError('corrupt', `the ${algorithm} of what came is ${got}, not ${expected}; it was thrown away, try again`)
}
