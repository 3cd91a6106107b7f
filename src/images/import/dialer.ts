import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { type ClientRequest, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import { connect, isIP, type Socket } from 'node:net'
import { connect as tlsConnect } from 'node:tls'
import { ServiceError } from '../../base/errors.ts'
import { KiB } from '../../base/units.ts'
import { type AddressPolicy, addressPolicy } from './address-policy.ts'
import { type ImportUrl, parseImportUrl, type UrlRules } from './import-url.ts'

/**
 * The one way out: every HTTP(S) request that the service makes for a user goes through a dialer.
 *
 * A name is resolved once for each hop, its addresses are held against the policy, and the connection is made to the very
 * address that passed: nothing resolves again between check and connect. The peer of the socket is checked once more before
 * a byte is sent. Redirects are not followed by any library: each is a new hop that is checked like the first. No cookie,
 * no credential and no header of the user goes out.
 */
export interface Dialer {
  /** Where requests may go; for a check before work is begun. @throws ServiceError `invalid-request` */
  check(url: string): ImportUrl
  /**
   * Sends a GET and follows redirects. Resolves with the headers; the body is read by iterating, and must be, or destroyed.
   * @throws ServiceError `invalid-request` for what may not be fetched; `unavailable` for what cannot be fetched now;
   *   `cancelled`
   */
  get(url: string, options?: DialOptions): Promise<DialedResponse>
}
export interface DialOptions {
  /** Sent as they are: `range`, `if-range`. */
  readonly headers?: Readonly<Record<'range' | 'if-range', string>> | undefined
  readonly signal?: AbortSignal | undefined
}
export interface DialedResponse {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** The URL that answered, after redirects. */
  readonly url: string
  /** Bytes of the body as the headers announce them; `undefined` where they do not. */
  readonly length: number | undefined
  /** Throws `unavailable` where the connection breaks, ends early or stalls. */
  readonly body: AsyncIterable<Uint8Array>
  destroy(): void
}

export interface DialerSettings {
  /** Hosts, in lower case, that may be fetched from although their addresses are not public. */
  readonly allowedHosts: readonly string[]
  /** Networks likewise, as CIDR. */
  readonly allowedNetworks: readonly string[]
  readonly allowedPorts: readonly number[]
  readonly allowedSchemes?: readonly ('http' | 'https')[]
  /** Certificates to trust besides the usual ones, PEM. */
  readonly certificates?: readonly string[]
  readonly resolve?: Resolve
  readonly limits?: Partial<DialerLimits>
}
/** All addresses of a host, once. */
export type Resolve = (host: string) => Promise<readonly string[]>

export interface DialerLimits {
  readonly redirects: number
  readonly connectMs: number
  readonly headersMs: number
  /** A body must bring `stallBytes` in each window of `stallMs`. */
  readonly stallMs: number
  readonly stallBytes: number
}
const defaultLimits: DialerLimits = {
  redirects: 5,
  connectMs: 10_000,
  headersMs: 30_000,
  stallMs: 60_000,
  stallBytes: 60 * KiB, // 1 KiB/s: the slowest line that would ever finish an image
}
const MAX_HEADER_BYTES = 16 * KiB
const MAX_ADDRESSES = 4 // tried one after another; a name with a thousand of them must not keep us for hours
const redirects = new Set([301, 302, 303, 307, 308])

/** @throws ServiceError `invalid-request` for settings that are not well-formed */
export function createDialer(settings: DialerSettings): Dialer {
  const rules: UrlRules = {
    schemes: new Set((settings.allowedSchemes ?? ['http', 'https']).map((name) => `${name}:` as const)),
    ports: new Set(settings.allowedPorts),
  }
  const context: Context = {
    hosts: new Set(settings.allowedHosts.map((host) => host.toLowerCase())),
    addresses: addressPolicy(settings.allowedNetworks),
    resolve: settings.resolve ?? resolveBySystem,
    certificates: settings.certificates,
    limits: { ...defaultLimits, ...settings.limits },
  }
  const check = (url: string): ImportUrl => {
    const parsed = parseImportUrl(url, rules)
    if (isIP(parsed.host) !== 0) assertAllowed(context, parsed.host, parsed.host)
    return parsed
  }
  return {
    check,
    async get(url, { headers = undefined, signal = undefined } = {}) {
      let target = check(url)
      for (let hop = 0; hop <= context.limits.redirects; hop += 1) {
        signal?.throwIfAborted()
        const response = await requestOnce(context, target, { headers, signal })
        const location = response.headers.location
        if (!redirects.has(response.status) || location === undefined) return response
        response.destroy()
        const next = check(resolveLocation(location, target))
        if (target.scheme === 'https:' && next.scheme === 'http:') throw refused('a redirect leads from https to http')
        target = next
      }
      throw refused(`it redirects more than ${context.limits.redirects} times`)
    },
  }
}

interface Context {
  readonly hosts: ReadonlySet<string>
  readonly addresses: AddressPolicy
  readonly resolve: Resolve
  readonly certificates: readonly string[] | undefined
  readonly limits: DialerLimits
}

const resolveBySystem: Resolve = async (host) =>
  (await lookup(host, { all: true, order: 'verbatim' })).map(({ address }) => address)

const refused = (problem: string): ServiceError =>
  new ServiceError('invalid-request', `this URL cannot be imported from: ${problem}`)
const unavailable = (problem: string, cause?: unknown): ServiceError =>
  new ServiceError('unavailable', `the source of the import ${problem}`, {}, { cause })

/** A relative reference is resolved by the URL parser; the result is checked as strictly as what a user writes. */
function resolveLocation(location: string, from: ImportUrl): string {
  if (!/^[\x21-\x7e]+$/.test(location) || location.includes('\\')) throw refused('it redirects to something that is no URL')
  if (/^[a-z][a-z0-9+.-]*:/i.test(location)) return location
  if (location.startsWith('//')) return `${from.scheme}${location}`
  if (!URL.canParse(location, from.href)) throw refused('it redirects to something that is no URL')
  return new URL(location, from.href).href
}

function assertAllowed({ addresses, hosts }: Context, address: string, host: string): void {
  const reason = addresses.refusal(address, hosts.has(host))
  if (reason === undefined) return
  throw refused(`${host} is not on the public internet (${reason}); the operator can let it in by the settings of imports`)
}

/** The addresses of a host that may be connected to: at least one. @throws ServiceError `invalid-request`, `unavailable` */
async function allowedAddresses(context: Context, host: string, signal: AbortSignal | undefined): Promise<readonly string[]> {
  if (isIP(host) !== 0) {
    assertAllowed(context, host, host)
    return [host]
  }
  const answers = await resolveInTime(context, host, signal)
  const allowed = answers.filter((address) => context.addresses.refusal(address, context.hosts.has(host)) === undefined)
  if (allowed.length > 0) return allowed.slice(0, MAX_ADDRESSES)
  if (answers[0] === undefined) throw refused(`the name ${host} has no address`)
  assertAllowed(context, answers[0], host)
  return []
}

/** A name that does not exist is wrong for good; a name server that does not answer may answer later. */
async function resolveInTime(
  { resolve, limits }: Context,
  host: string,
  signal: AbortSignal | undefined,
): Promise<readonly string[]> {
  const deadline = AbortSignal.any([AbortSignal.timeout(limits.connectMs), ...(signal ? [signal] : [])])
  const late = Promise.withResolvers<never>()
  const onAbort = (): void => late.reject(deadline.reason)
  deadline.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([resolve(host), late.promise])
  } catch (cause) {
    if (signal?.aborted) throw cancelled(signal)
    const isUnknown = (cause as NodeJS.ErrnoException).code === 'ENOTFOUND'
    throw isUnknown
      ? refused(`the name ${host} has no address`)
      : unavailable(`cannot be found: nobody says which address ${host} has`, cause)
  } finally {
    deadline.removeEventListener('abort', onAbort)
  }
}

async function requestOnce(context: Context, url: ImportUrl, { headers, signal }: DialOptions): Promise<DialedResponse> {
  const socket = await connectTo(context, url, signal)
  const request = httpRequest({
    createConnection: () => socket,
    method: 'GET',
    path: url.pathAndQuery,
    setHost: false,
    maxHeaderSize: MAX_HEADER_BYTES,
    headers: {
      host: url.authority,
      accept: '*/*',
      'accept-encoding': 'identity',
      'user-agent': 'imprint',
      connection: 'close',
      ...headers,
    },
  })
  // Errors come out of the promises and iterators below; one that comes between two of them must not end the process.
  request.on('error', () => {})
  request.on('response', (response) => response.on('error', () => {}))
  request.end()
  const response = await responseTo(request, context.limits.headersMs, signal)
  const encoding = response.headers['content-encoding'] ?? 'identity'
  if (encoding !== 'identity' && !redirects.has(response.statusCode ?? 0)) {
    request.destroy()
    throw refused(`the answer is sent with Content-Encoding ${encoding.slice(0, 40)}, which was not asked for`)
  }
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    url: url.href,
    length: lengthOf(response.headers),
    body: bodyOf(response, request, context.limits, signal),
    destroy: () => request.destroy(),
  }
}

function lengthOf(headers: IncomingHttpHeaders): number | undefined {
  const text = headers['content-length']
  if (text === undefined || headers['transfer-encoding'] !== undefined) return undefined
  const length = Number(text)
  if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(length))
    throw refused('the answer has a Content-Length that is no number')
  return length
}

/** Tries the addresses in turn. What comes back is connected to an address that passed, and for https is authenticated. */
async function connectTo(context: Context, url: ImportUrl, signal: AbortSignal | undefined): Promise<Socket> {
  let last: unknown
  for (const address of await allowedAddresses(context, url.host, signal)) {
    try {
      return await connectToAddress(context, url, address, signal)
    } catch (error) {
      if (error instanceof ServiceError) throw error
      last = error
    }
  }
  throw unavailable(`cannot be reached at ${url.authority}`, last)
}

async function connectToAddress(
  context: Context,
  url: ImportUrl,
  address: string,
  signal: AbortSignal | undefined,
): Promise<Socket> {
  const deadline = AbortSignal.any([AbortSignal.timeout(context.limits.connectMs), ...(signal ? [signal] : [])])
  // No automatic choice of family and no look-up: `address` is an address, and the only one to be tried.
  const socket = connect({ host: address, port: url.port, autoSelectFamily: false, lookup: refuseLookup })
  socket.on('error', () => {}) // as above
  try {
    await once(socket, 'connect', { signal: deadline })
    const peer = socket.remoteAddress ?? ''
    assertAllowed(context, peer, isIP(url.host) === 0 ? url.host : peer)
    if (url.scheme === 'http:') return socket
    const secure = tlsConnect({
      socket,
      ...(isIP(url.host) === 0 ? { servername: url.host } : { host: url.host }),
      ALPNProtocols: ['http/1.1'],
      minVersion: 'TLSv1.2',
      ...(context.certificates ? { ca: [...context.certificates] } : {}),
    })
    secure.on('error', () => socket.destroy())
    await once(secure, 'secureConnect', { signal: deadline })
    return secure
  } catch (error) {
    socket.destroy()
    if (signal?.aborted) throw cancelled(signal)
    throw error
  }
}

const refuseLookup = (): never => {
  throw new Error('a dialer connects to addresses, never to names')
}
const cancelled = (signal: AbortSignal): ServiceError =>
  signal.reason instanceof ServiceError ? signal.reason : new ServiceError('cancelled', 'the import was cancelled')

async function responseTo(request: ClientRequest, headersMs: number, signal: AbortSignal | undefined): Promise<IncomingMessage> {
  const deadline = AbortSignal.any([AbortSignal.timeout(headersMs), ...(signal ? [signal] : [])])
  try {
    const [response] = (await once(request, 'response', { signal: deadline })) as [IncomingMessage]
    return response
  } catch (cause) {
    request.destroy()
    if (signal?.aborted) throw cancelled(signal)
    throw unavailable('did not answer with HTTP headers in time and form', cause)
  }
}

async function* bodyOf(
  response: IncomingMessage,
  request: ClientRequest,
  { stallMs, stallBytes }: DialerLimits,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  let reason: ServiceError | undefined
  const stop = (why: ServiceError): void => {
    reason ??= why
    request.destroy()
    response.destroy(why)
  }
  const window = { bytes: 0, oursMs: 0 }
  const guard = setInterval(() => {
    // Time in which we were busy with the last bytes is not the source's fault; half a window of its own is enough to judge it.
    if (window.oursMs < stallMs / 2 && window.bytes < stallBytes) {
      stop(unavailable(`sent less than ${stallBytes} bytes in ${stallMs / 1000} s`))
    }
    window.bytes = 0
    window.oursMs = 0
  }, stallMs).unref()
  const onAbort = (): void => stop(cancelled(signal as AbortSignal))
  signal?.addEventListener('abort', onAbort, { once: true })
  if (signal?.aborted) onAbort()
  try {
    for await (const chunk of response as AsyncIterable<Uint8Array>) {
      window.bytes += chunk.length
      const handedOver = performance.now()
      yield chunk
      window.oursMs += performance.now() - handedOver
    }
    if (!response.complete) throw unavailable('ended before its announced length')
  } catch (cause) {
    throw reason ?? (cause instanceof ServiceError ? cause : unavailable('broke off', cause))
  } finally {
    clearInterval(guard)
    signal?.removeEventListener('abort', onAbort)
    request.destroy()
  }
}
