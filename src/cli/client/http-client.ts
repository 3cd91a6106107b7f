import { Agent as HttpAgent, type IncomingMessage, request as requestHttp } from 'node:http'
import { Agent as HttpsAgent, request as requestHttps } from 'node:https'
import { setTimeout as wait } from 'node:timers/promises'
import { type ErrorCode, isServiceError, ServiceError } from '../../base/errors.ts'

export interface Ask {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Path and query under the service's address. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  /** An iterable is sent as it comes and cannot be sent again. */
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>
  readonly signal?: AbortSignal
}

export interface Answer {
  readonly status: number
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: IncomingMessage
}

/** An answer that must fit in memory; what is larger is not an answer of ours. */
const MAX_JSON_BYTES = 32 * 1024 * 1024
const MAX_ERROR_BYTES = 64 * 1024
/** No byte in either direction for so long: the line is dead. Long jobs send a line at least every few seconds. */
const SILENCE_MS = 120_000
const CONNECT_MS = 15_000
const FIRST_RETRY_MS = 250

/**
 * HTTP to one service, over kept connections. Redirects are not followed: the service sends none, and the token is for it alone.
 */
export class HttpClient {
  readonly baseUrl: string
  readonly #agent: HttpAgent | HttpsAgent
  readonly #secure: boolean
  readonly #url: URL
  #token: string | undefined

  /** @param baseUrl `http://host:port` or with a path, without a slash at the end */
  constructor(baseUrl: string, options: { readonly connections?: number } = {}) {
    this.#url = parseBase(baseUrl)
    this.baseUrl = this.#url.href.replace(/\/+$/, '')
    this.#secure = this.#url.protocol === 'https:'
    const settings = { keepAlive: true, maxSockets: options.connections ?? 8, timeout: SILENCE_MS }
    this.#agent = this.#secure ? new HttpsAgent(settings) : new HttpAgent(settings)
  }

  set token(token: string | undefined) {
    this.#token = token
  }

  close(): void {
    this.#agent.destroy()
  }

  /** Sends and waits for the head of the answer, whatever its status. @throws ServiceError `unavailable` | `cancelled` */
  async send(ask: Ask): Promise<Answer> {
    const { body, signal } = ask
    if (signal?.aborted) throw cancelled()
    const headers: Record<string, string> = { accept: 'application/json', ...ask.headers }
    if (this.#token) headers['x-auth-token'] = this.#token
    if (body instanceof Uint8Array) headers['content-length'] = String(body.length)
    return new Promise<Answer>((resolve, reject) => {
      const options = { method: ask.method, agent: this.#agent, headers, ...(signal ? { signal } : {}) }
      const outgoing = (this.#secure ? requestHttps : requestHttp)(`${this.baseUrl}${ask.path}`, options)
      const connecting = setTimeout(() => outgoing.destroy(new Error('no answer to the connection')), CONNECT_MS)
      outgoing.on('socket', (socket) => {
        if (!socket.connecting) clearTimeout(connecting)
        else socket.once(this.#secure ? 'secureConnect' : 'connect', () => clearTimeout(connecting))
      })
      outgoing.on('timeout', () => outgoing.destroy(new Error(`no byte for ${SILENCE_MS / 1000} s`)))
      outgoing.on('error', (error) => {
        clearTimeout(connecting)
        reject(this.#unreachable(error, signal))
      })
      outgoing.on('response', (incoming) => {
        clearTimeout(connecting)
        // a reader that comes late must not meet an uncaught 'error'
        incoming.on('error', () => {})
        const answered = Object.entries(incoming.headers).map(([name, value]) => [name, String(value)])
        resolve({ status: incoming.statusCode ?? 0, headers: Object.fromEntries(answered), body: incoming })
      })
      if (body === undefined || body instanceof Uint8Array) outgoing.end(body)
      else void pump(body, outgoing).catch((error: Error) => outgoing.destroy(error))
    })
  }

  /** As `send`, and an answer that is no success is thrown. @throws ServiceError as the service said it */
  async ask(ask: Ask): Promise<Answer> {
    const answer = await this.send(ask)
    if (answer.status >= 200 && answer.status < 300) return answer
    throw await errorOf(answer)
  }

  /** JSON in, JSON out; `undefined` for an answer without a body. */
  async json(
    method: Ask['method'],
    path: string,
    body?: unknown,
    options: Pick<Ask, 'headers' | 'signal'> = {},
  ): Promise<unknown> {
    const { headers } = options
    const answer = await this.ask({
      method,
      path,
      ...options,
      headers: body === undefined ? { ...headers } : { 'content-type': 'application/json', ...headers },
      ...(body === undefined ? {} : { body: Buffer.from(JSON.stringify(body)) }),
    })
    return this.jsonOf(answer)
  }

  /** The body of an answer; `undefined` where it is empty. */
  async jsonOf(answer: Answer): Promise<unknown> {
    return parseJson(await readAll(answer, MAX_JSON_BYTES))
  }

  /** The bytes of an answer, at most `maxBytes`. */
  async bytes(ask: Ask, maxBytes: number): Promise<Uint8Array> {
    return readAll(await this.ask(ask), maxBytes)
  }

  /** One JSON document a line, as they come. */
  async *lines(ask: Ask): AsyncIterable<unknown> {
    const { body } = await this.ask(ask)
    let rest = ''
    try {
      body.setEncoding('utf8')
      for await (const text of body as AsyncIterable<string>) {
        rest += text
        if (rest.length > MAX_JSON_BYTES) throw strange('a line of the answer has no end')
        const lines = rest.split('\n')
        rest = lines.pop()!
        for (const line of lines) if (line.trim() !== '') yield parseJson(Buffer.from(line))
      }
    } catch (error) {
      throw isServiceError(error) ? error : this.#unreachable(error as Error, ask.signal)
    } finally {
      body.destroy()
    }
    if (rest.trim() !== '') yield parseJson(Buffer.from(rest))
  }

  #unreachable(cause: NodeJS.ErrnoException, signal?: AbortSignal): Error {
    if (isServiceError(cause)) return cause
    if (signal?.aborted) return cancelled()
    if (cause.code === 'ECONNREFUSED') {
      const message = `nothing answers at ${this.baseUrl}; start the service there with: imprint serve`
      return new ServiceError('unavailable', message, {}, { cause })
    }
    const message = `the connection to ${this.baseUrl} failed: ${cause.message}; try again`
    return new ServiceError('unavailable', message, {}, { cause })
  }
}

/**
 * Runs an idempotent request again while the service cannot be reached or is busy, waiting longer each time.
 * @param tries in all; the last failure is thrown
 */
export async function persist<T>(tries: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work()
    } catch (error) {
      const passing = isServiceError(error, 'unavailable') || isServiceError(error, 'too-many-requests')
      if (!passing || attempt >= tries || signal.aborted) throw error
      await wait(FIRST_RETRY_MS * 2 ** (attempt - 1), undefined, { signal }).catch(() => {
        throw cancelled()
      })
    }
  }
}

export const cancelled = (): ServiceError => new ServiceError('cancelled', 'interrupted')

/** The service, or what stands in its place, answered what it should not. */
export const strange = (what: string): ServiceError =>
  new ServiceError('unsupported', `${what}; is this address an Imprint service? see: imprint status`)

function parseBase(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new ServiceError('invalid-request', `"${text}" is no address of a service; give one as http://127.0.0.1:9797`)
  }
  if (url.username || url.password) {
    throw new ServiceError('invalid-request', 'the address must hold no user or password; imprint login asks for them')
  }
  url.search = ''
  url.hash = ''
  return url
}

async function pump(body: AsyncIterable<Uint8Array>, outgoing: NodeJS.WritableStream): Promise<void> {
  for await (const bytes of body) {
    if (!outgoing.write(bytes)) {
      await new Promise<void>((resolve, reject) => {
        outgoing.once('drain', resolve)
        outgoing.once('close', () => reject(new Error('the connection closed')))
      })
    }
  }
  outgoing.end()
}

async function readAll({ body }: Answer, maxBytes: number): Promise<Uint8Array> {
  const parts: Buffer[] = []
  let bytes = 0
  try {
    for await (const part of body as AsyncIterable<Buffer>) {
      bytes += part.length
      if (bytes > maxBytes) throw strange(`the answer is larger than ${maxBytes} bytes`)
      parts.push(part)
    }
  } catch (error) {
    if (isServiceError(error)) throw error
    throw new ServiceError('unavailable', `the answer broke off: ${(error as Error).message}; try again`)
  } finally {
    if (!body.readableEnded) body.destroy()
  }
  return Buffer.concat(parts)
}

function parseJson(bytes: Uint8Array): unknown {
  if (bytes.length === 0) return undefined
  try {
    return JSON.parse(Buffer.from(bytes).toString('utf8')) as unknown
  } catch {
    throw strange('the answer is not JSON')
  }
}

const codeOfStatus: Readonly<Record<number, ErrorCode>> = {
  400: 'invalid-request',
  401: 'unauthenticated',
  403: 'denied',
  404: 'not-found',
  405: 'unsupported',
  409: 'conflict',
  410: 'gone',
  413: 'over-quota',
  415: 'unsupported',
  416: 'range-not-satisfiable',
  429: 'too-many-requests',
  499: 'cancelled',
  502: 'unavailable',
  503: 'unavailable',
  504: 'unavailable',
  507: 'no-space',
}
const ownCodes: ReadonlySet<string> = new Set([...Object.values(codeOfStatus), 'invalid-image', 'too-large', 'corrupt'])

/** The service's own words where it has some, whichever of its APIs was asked. */
async function errorOf(answer: Answer): Promise<ServiceError> {
  const { status } = answer
  if (status >= 300 && status < 400) return strange(`it answered ${status} and sent us elsewhere`)
  const text = Buffer.from(await readAll(answer, MAX_ERROR_BYTES).catch(() => new Uint8Array())).toString('utf8')
  const { code = answer.headers['x-imprint-error'], message } = wordsOf(text)
  const known = code !== undefined && ownCodes.has(code) ? (code as ErrorCode) : codeOfStatus[status]
  const requestId = answer.headers['x-openstack-request-id'] ?? null
  const said = message ?? `the service answered ${status}`
  return new ServiceError(known ?? (status >= 500 ? 'unavailable' : 'invalid-request'), said, { status, requestId })
}

function wordsOf(text: string): { readonly code?: string; readonly message?: string } {
  try {
    const parsed = JSON.parse(text) as Record<string, unknown> | null
    const [only, ...others] = Object.values(parsed ?? {}) // Nova's form: {"badRequest": {"code": 400, "message": …}}
    const inner = others.length === 0 && typeof only === 'object' ? (only as Record<string, unknown> | null) : parsed
    const { code, message } = inner ?? {}
    return { ...(typeof code === 'string' ? { code } : {}), ...(typeof message === 'string' ? { message } : {}) }
  } catch {
    const plain = text
      .replace(/<(title|h1)>[^<]*<\/\1>/g, ' ')
      .replace(/<[^>]*>/g, ' ')
      .replace(/&lt;/g, '<')
      .replace(/&gt;/g, '>')
      .replace(/&quot;|&#34;/g, '"')
      .replace(/&#39;|&#x27;/g, "'")
      .replace(/&amp;/g, '&')
      .replace(/\s+/g, ' ')
      .trim()
    return plain === '' ? {} : { message: plain.slice(0, 500) }
  }
}
