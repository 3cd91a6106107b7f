import { setTimeout as pause } from 'node:timers/promises'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import type { DialedResponse, Dialer } from './dialer.ts'

export interface FetchOptions {
  /** Checked against what the source announces, and again while reading: an endless body ends in an error. */
  readonly maxBytes: number
  readonly signal?: AbortSignal | undefined
  readonly retry?: Partial<RetryLimits> | undefined
  /** Told once the source has answered. */
  readonly onAnswer?: ((answer: { readonly url: string; readonly fileBytes: number | undefined }) => void) | undefined
}
export interface RetryLimits {
  /** Tries at the beginning, before the source has ever answered: few, for somebody waits to learn of a slip in the address. */
  readonly first: number
  /** Later tries in a row that bring no byte. */
  readonly fruitless: number
  /** Connections in all. */
  readonly connections: number
  /** Before the first retry; doubled each time, up to `maxPauseMs`. */
  readonly firstPauseMs: number
  readonly maxPauseMs: number
}
const defaultRetry: RetryLimits = { first: 3, fruitless: 5, connections: 50, firstPauseMs: 500, maxPauseMs: 30_000 }

/**
 * The bytes of a file elsewhere, front to back. Where the connection breaks, it goes on from the byte it had reached, if the
 * source can say that the file is still the same one (a strong ETag, or the time of its last change); else it ends in an error.
 *
 * @throws ServiceError `too-large`; `invalid-request` where the source will never give the file; `unavailable` where it broke
 *   too often or changed in between; `cancelled`
 */
export async function* fetchFile(
  dialer: Dialer,
  url: string,
  options: FetchOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { maxBytes, signal } = options
  const retry = { ...defaultRetry, ...options.retry }
  let [offset, fruitless, connections] = [0, 0, 0]
  let file: SourceFile | undefined
  for (;;) {
    const before = offset
    let failure: ServiceError
    try {
      connections += 1
      const { response, rest } = await open(dialer, url, offset, file, signal)
      if (!file) {
        file = sourceFile(response)
        assertFits(file.fileBytes ?? 0, maxBytes)
        options.onAnswer?.({ url: response.url, fileBytes: file.fileBytes })
      }
      for await (const chunk of rest) {
        offset += chunk.length
        assertFits(offset, maxBytes)
        if (file.fileBytes !== undefined && offset > file.fileBytes) throw changed('it sends more bytes than it announced')
        yield chunk
      }
      if (file.fileBytes === undefined || offset === file.fileBytes) return
      failure = new ServiceError('unavailable', `the source of the import ended after ${offset} of ${file.fileBytes} bytes`)
    } catch (error) {
      if (!isServiceError(error, 'unavailable') || error.details.final === true) throw error
      failure = error
    }
    fruitless = offset > before ? 0 : fruitless + 1
    const resumable = offset === 0 || file?.validator !== undefined
    const patience = file ? retry.fruitless : retry.first
    if (!resumable || fruitless >= patience || connections >= retry.connections) {
      const what = resumable ? `gave up after ${connections} connections` : 'it names no ETag, so it cannot be gone on with'
      throw new ServiceError('unavailable', `${failure.message}; ${what}`, { offset }, { cause: failure })
    }
    await pause(Math.min(retry.maxPauseMs, retry.firstPauseMs * 2 ** (fruitless - 1)), undefined, signal ? { signal } : {}).catch(
      () => {
        throw new ServiceError('cancelled', 'the import was cancelled')
      },
    )
  }
}

interface SourceFile {
  readonly fileBytes: number | undefined
  /** For `If-Range`: a strong ETag or a date. */
  readonly validator: string | undefined
  readonly etag: string | undefined
}

/** The answer, and of its body what lies at and after `offset`. */
async function open(
  dialer: Dialer,
  url: string,
  offset: number,
  file: SourceFile | undefined,
  signal: AbortSignal | undefined,
): Promise<{ readonly response: DialedResponse; readonly rest: AsyncIterable<Uint8Array> }> {
  const wanted = offset > 0 && file?.validator !== undefined
  const headers = wanted ? { range: `bytes=${offset}-`, 'if-range': file?.validator as string } : undefined
  const response = await dialer.get(url, { headers, signal })
  try {
    if (!wanted) {
      assertStatus(response, 200)
      if (file && response.headers.etag !== file.etag) throw changed('it has changed')
      return { response, rest: response.body }
    }
    if (response.status === 200 && file?.etag !== undefined && response.headers.etag === file.etag) {
      return { response, rest: skip(response.body, offset) } // the same file, from a source that does not do ranges
    }
    if (response.status === 200) throw changed('it has changed')
    assertStatus(response, 206)
    const range = /^bytes (\d{1,16})-\d{1,16}\/(\d{1,16}|\*)$/.exec(response.headers['content-range'] ?? '')
    const total = range?.[2] === '*' ? file?.fileBytes : Number(range?.[2])
    if (Number(range?.[1]) !== offset || total !== file?.fileBytes)
      throw changed('it answers with another range than was asked for')
    return { response, rest: response.body }
  } catch (error) {
    response.destroy()
    throw error
  }
}

function assertStatus({ status, url }: DialedResponse, wanted: number): void {
  if (status === wanted) return
  const says = `the source of the import answers ${status} for ${url.slice(0, 200)}`
  if (status === 408 || status === 429 || status >= 500) throw new ServiceError('unavailable', says, { status })
  throw new ServiceError('invalid-request', says, { status })
}

function sourceFile({ headers, length }: DialedResponse): SourceFile {
  const etag = headers.etag
  const strong = etag !== undefined && /^"[\x21\x23-\x7e]{0,512}"$/.test(etag) ? etag : undefined
  return { fileBytes: length, validator: strong ?? headers['last-modified']?.slice(0, 64), etag: strong }
}

async function* skip(body: AsyncIterable<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array, void, undefined> {
  let left = bytes
  for await (const chunk of body) {
    if (chunk.length > left) yield chunk.subarray(left)
    left = Math.max(0, left - chunk.length)
  }
  if (left > 0) throw changed('it has become shorter')
}

/** Not tried again: the bytes taken so far belong to another file. */
const changed = (how: string): ServiceError =>
  new ServiceError('unavailable', `the source of the import changed while it was read: ${how}; import it again`, { final: true })

function assertFits(bytes: number, maxBytes: number): void {
  if (bytes > maxBytes)
    throw new ServiceError('too-large', `the file is larger than the ${maxBytes} bytes that may be imported`, { maxBytes })
}
