import { isServiceError, ServiceError } from '../base/errors.ts'
import { KiB, MiB } from '../base/units.ts'
import { type HttpClient, strange } from '../cli/client/http-client.ts'
import { Shape } from '../cli/client/shape.ts'
import { signingIn } from '../cli/client/signing-in.ts'
import { MAX_BOOT_RECORD_BYTES } from '../store/content/boot-record.ts'
import { decodeFrames, readBody } from '../store/content/decode-chunks.ts'
import { FRAME_HEAD_BYTES, type WireChunk } from '../store/content/encode-chunks.ts'
import { MAX_PAGE_BYTES, MAX_ROOT_BYTES, maxFileBytes } from '../store/content/manifest-format.ts'
import type { ChunkOrigin, OriginFile } from './origin.ts'

/** Of stores that this program can read: docs/store-format.md. */
const LEAST_CHUNK_BYTES = 4 * KiB
const MOST_CHUNK_BYTES = MiB

/**
 * The file behind an export of a service (docs/api-v1.md, "Exports by chunks").
 * @param signIn called where the service knows the token no more: gives `http` a new one
 */
export const httpOrigin = (http: HttpClient, exportId: string, signIn: () => Promise<void>): ChunkOrigin =>
  fileOrigin(http, `/v1/exports/${encodeURIComponent(exportId)}/file`, signIn)

/** @param path of a file that is given by chunks */
export function fileOrigin(http: HttpClient, path: string, signIn: () => Promise<void>): ChunkOrigin {
  const binary = { accept: 'application/octet-stream' }
  const signedIn = signingIn(signIn)
  let chunkBytes = MOST_CHUNK_BYTES
  return {
    async describe(signal) {
      const file = fileFrom(await signedIn(() => http.json('GET', path, undefined, { signal })))
      chunkBytes = file.chunkBytes
      return file
    },
    root: (signal) =>
      signedIn(() => http.bytes({ method: 'GET', path: `${path}/layout`, headers: binary, signal }, MAX_ROOT_BYTES)),
    page: (page, signal) =>
      signedIn(() => http.bytes({ method: 'GET', path: `${path}/layout/${page}`, headers: binary, signal }, MAX_PAGE_BYTES)),
    async *chunks(numbers, { isVerified, signal }) {
      const { body } = await signedIn(() =>
        http.ask({
          method: 'POST',
          path: `${path}/chunks${isVerified ? '?verified=true' : ''}`,
          headers: { ...binary, 'content-type': 'application/octet-stream' },
          body: numbersBody(numbers),
          signal,
        }),
      )
      try {
        yield* framesOf(body, numbers.length, chunkBytes, signal)
      } finally {
        if (!body.readableEnded) body.destroy()
      }
    },
    async bootRecord(signal) {
      try {
        const answer = await signedIn(() => http.ask({ method: 'GET', path: `${path}/boot-record`, headers: binary, signal }))
        const record = await readBody(answer.body, MAX_BOOT_RECORD_BYTES)
        return { record, isOwn: answer.headers['imprint-boot-record'] === 'own' }
      } catch (error) {
        if (isServiceError(error, 'not-found')) return undefined
        throw error
      }
    },
    async putBootRecord(record, signal) {
      const headers = { 'content-type': 'application/octet-stream' }
      await signedIn(() => http.bytes({ method: 'PUT', path: `${path}/boot-record`, headers, body: record, signal }, 0))
    },
  }
}

async function* framesOf(
  body: AsyncIterable<Uint8Array>,
  count: number,
  chunkBytes: number,
  signal: AbortSignal,
): AsyncGenerator<WireChunk> {
  const arriving = arrivingFrom(body, signal)
  try {
    yield* decodeFrames(arriving, chunkBytes, count * (FRAME_HEAD_BYTES + chunkBytes))
  } catch (error) {
    if (isServiceError(error, 'invalid-request') || isServiceError(error, 'too-large')) {
      throw strange(`its answer is not the chunks that were asked for: ${error.message}`)
    }
    throw error
  }
}

async function* arrivingFrom(body: AsyncIterable<Uint8Array>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    yield* body
  } catch (cause) {
    if (signal.aborted) throw new ServiceError('cancelled', 'the reader has left')
    throw new ServiceError('unavailable', `the answer broke off: ${(cause as Error).message}; try again`, {}, { cause })
  }
}

function numbersBody(numbers: readonly number[]): Uint8Array {
  const body = Buffer.alloc(4 * numbers.length)
  for (const [index, number] of numbers.entries()) body.writeUInt32BE(number, 4 * index)
  return body
}

/** Nothing is allocated by these numbers before they have met their limits. */
function fileFrom(answer: unknown): OriginFile {
  const shape = new Shape(answer, 'file')
  const [manifest, diskFormat] = [shape.text('manifest'), shape.text('diskFormat')]
  const [fileBytes, chunkBytes] = [shape.number('fileBytes'), shape.number('chunkBytes')]
  if (!/^[0-9a-f]{64}$/.test(manifest)) throw strange('it names a manifest that is none')
  const isChunk = Number.isInteger(Math.log2(chunkBytes)) && chunkBytes >= LEAST_CHUNK_BYTES && chunkBytes <= MOST_CHUNK_BYTES
  if (!isChunk) throw strange(`it names a chunk size of ${chunkBytes} bytes`)
  const isFile = Number.isSafeInteger(fileBytes) && fileBytes >= 0 && fileBytes <= maxFileBytes(chunkBytes)
  if (!isFile) throw strange(`it names a file of ${fileBytes} bytes`)
  return { manifest, diskFormat, fileBytes, chunkBytes }
}
