import { setTimeout as wait } from 'node:timers/promises'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { ByteLru } from '../../disk/block/byte-lru.ts'
import { type SpoolOptions, spooled } from './scratch-file.ts'

/** What is asked for at a time; tables lie near to one another. */
const BLOCK_BYTES = MiB
/** As many as readers ahead may want at once, and some for tables. */
const KEPT_BYTES = 32 * MiB
const ANSWER_MS = 120_000
const TRIES = 5
const FIRST_WAIT_MS = 200

/**
 * A file at an http:// or https:// address: by ranges where the server has them, else fetched whole into a scratch file first. It must
 * not change meanwhile. Redirects are followed, from HTTPS to HTTPS only.
 * @throws ServiceError `not-found`, `denied`, `unavailable`; `conflict` where it changes; `too-large` as `spooled`
 */
export async function openUrl(address: string, options: Omit<SpoolOptions, 'what' | 'totalBytes'>): Promise<BlockSource> {
  const { signal } = options
  const asker = new Asker(address, signal)
  const first = await asker.ask(0, BLOCK_BYTES)
  if (first.status === 200) {
    const length = first.headers.get('content-length')
    const totalBytes = length === null ? null : Number(length)
    const body = withEnd(first.body ?? [], totalBytes, asker)
    return spooled(body, { ...options, what: asker.host, totalBytes })
  }
  const { total, version } = rangeOf(first, 0, asker)
  const blocks = new ByteLru(KEPT_BYTES)
  const head = await bodyOf(first, Math.min(BLOCK_BYTES, total), asker)
  const load = (at: number): Promise<Uint8Array> =>
    asker.patiently(async () => {
      const length = Math.min(BLOCK_BYTES, total - at)
      const answer = await asker.ask(at, length)
      const said = answer.status === 206 ? rangeOf(answer, at, asker) : undefined
      if (said?.total === total && said.version === version) return bodyOf(answer, length, asker)
      await answer.body?.cancel()
      throw new ServiceError('conflict', `the file at ${asker.host} changed while it was read: try again`)
    })
  void blocks.get(0, async () => head)
  const block = (at: number) => blocks.get(at, () => load(at))
  return {
    size: total,
    async read(offset, length, into) {
      const starts: number[] = []
      for (let at = offset - (offset % BLOCK_BYTES); at < offset + length; at += BLOCK_BYTES) starts.push(at)
      const answer = into ?? Buffer.allocUnsafeSlow(length)
      await Promise.all(
        starts.map(async (start) => {
          const bytes = await block(start)
          const from = Math.max(offset, start)
          const to = Math.min(offset + length, start + bytes.length)
          answer.set(bytes.subarray(from - start, to - start), from - offset)
        }),
      )
      return answer
    },
    async *extents(offset, length) {
      if (length > 0) yield { offset, length, kind: 'data' }
    },
    close: async () => {},
  }
}

/** Asks for ranges of one file. */
class Asker {
  readonly #url: URL
  readonly #headers: Record<string, string>
  readonly #signal: AbortSignal
  /** For messages. */
  readonly host: string

  constructor(address: string, signal: AbortSignal) {
    if (!URL.canParse(address)) throw new ServiceError('invalid-request', 'the address is none')
    const url = new URL(address)
    const { username, password } = url
    this.#headers = { 'accept-encoding': 'identity' }
    if (username !== '' || password !== '') {
      const pair = [username, password].map(decoded).join(':')
      this.#headers.authorization = `Basic ${Buffer.from(pair).toString('base64')}`
      url.username = ''
      url.password = ''
    }
    this.#url = url
    this.host = url.host
    this.#signal = signal
  }

  async ask(offset: number, length: number): Promise<Response> {
    const headers = { ...this.#headers, range: `bytes=${offset}-${offset + length - 1}` }
    const slow = new AbortController()
    const timer = setTimeout(() => slow.abort(new Error('no answer in time')), ANSWER_MS)
    let answer: Response
    try {
      answer = await fetch(this.#url, { headers, signal: AbortSignal.any([this.#signal, slow.signal]) })
    } catch (cause) {
      throw this.lost((cause as Error).cause ?? cause)
    } finally {
      clearTimeout(timer) // the body may take its time, as long as it comes: fetch waits 5 minutes for each part
    }
    const problem = this.#problemOf(answer)
    if (!problem) return answer
    await answer.body?.cancel()
    throw problem
  }

  #problemOf({ url, status, headers }: Response): ServiceError | undefined {
    if (this.#url.protocol === 'https:' && !url.startsWith('https:'))
      return new ServiceError('denied', `${this.host} leads away from HTTPS: it is not followed`)
    if (status === 404 || status === 410) return new ServiceError('not-found', `${this.host} has no such file (${status})`)
    if (status === 401 || status === 403) return new ServiceError('denied', `${this.host} does not allow it (${status})`)
    if (status === 416) return new ServiceError('invalid-image', 'the file is empty', { reason: 'truncated' })
    if (status !== 200 && status !== 206) return new ServiceError('unavailable', `${this.host} answers with ${status}`)
    const encoding = headers.get('content-encoding') ?? 'identity'
    if (encoding === 'identity') return undefined
    return new ServiceError('unsupported', `${this.host} sends the file encoded (${encoding}), though it was asked not to`)
  }

  /** @param cause why nothing, or not all, came */
  lost(cause: unknown): ServiceError {
    if (this.#signal.aborted) return new ServiceError('cancelled', 'interrupted')
    return new ServiceError(
      'unavailable',
      `${this.host} cannot be reached, or broke off: ${(cause as Error).message}`,
      {},
      { cause },
    )
  }

  /** Again, a few times, what did not arrive. */
  async patiently<Answer>(attempt: () => Promise<Answer>): Promise<Answer> {
    for (let failures = 1; ; failures += 1) {
      try {
        return await attempt()
      } catch (error) {
        if (!isServiceError(error, 'unavailable') || failures >= TRIES) throw error
      }
      await wait(FIRST_WAIT_MS * 2 ** failures, undefined, { signal: this.#signal })
    }
  }
}

/** @throws ServiceError `unsupported` where the answer is not the range that was asked for */
function rangeOf({ headers }: Response, offset: number, { host }: Asker): { readonly total: number; readonly version: string } {
  const range = headers.get('content-range') ?? ''
  const [, start, total] = /^bytes (\d+)-\d+\/(\d+)$/.exec(range) ?? []
  if (Number(start) !== offset || !Number.isSafeInteger(Number(total))) {
    throw new ServiceError('unsupported', `${host} answers with another range than was asked for`)
  }
  return { total: Number(total), version: `${headers.get('etag')} ${headers.get('last-modified')}` }
}

/** Exactly `length` bytes: an answer may be endless, or end early. */
async function bodyOf({ body }: Response, length: number, asker: Asker): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafeSlow(length)
  let filled = 0
  for await (const part of withEnd(body ?? [], length, asker)) {
    bytes.set(part, filled)
    filled += part.length
  }
  return bytes
}

/** @throws ServiceError `unavailable` where it is not of that length */
async function* withEnd(
  body: AsyncIterable<Uint8Array> | readonly Uint8Array[],
  length: number | null,
  asker: Asker,
): AsyncGenerator<Uint8Array> {
  let bytes = 0
  try {
    for await (const part of body) {
      bytes += part.length
      if (length !== null && bytes > length) throw asker.lost(new Error(`it sends more than ${length} bytes`))
      yield part
    }
  } catch (cause) {
    throw isServiceError(cause) ? cause : asker.lost(cause)
  }
  if (length !== null && bytes < length) throw asker.lost(new Error(`it sent ${bytes} of ${length} bytes`))
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new ServiceError('invalid-request', 'the user or the password in the address is not percent-encoded as it should be')
  }
}
