import { isIP } from 'node:net'
import { ServiceError } from '../../base/errors.ts'

export interface UrlRules {
  readonly schemes: ReadonlySet<'http:' | 'https:'>
  readonly ports: ReadonlySet<number>
}

/** An address to fetch from, checked: each part says the same to every reader. */
export interface ImportUrl {
  /** In its normal form, without user, password or fragment. */
  readonly href: string
  readonly scheme: 'http:' | 'https:'
  /** A name in lower case, or an address without brackets. */
  readonly host: string
  readonly port: number
  /** As the `Host` header has it. */
  readonly authority: string
  readonly pathAndQuery: string
}

const MAX_URL = 2048

/**
 * Reads a URL in the one form in which nobody can read it differently: no user, no encoded or shortened IP address, no
 * letters that look like dots, no zone. What a lenient parser would mend is refused.
 *
 * @throws ServiceError `invalid-request`, saying which part is wrong and how to write it
 */
export function parseImportUrl(text: string, rules: UrlRules): ImportUrl {
  const refuse = (problem: string): never => {
    throw new ServiceError('invalid-request', `this URL cannot be imported from: ${problem}`)
  }
  if (text.length > MAX_URL) refuse(`it is longer than ${MAX_URL} characters`)
  // Printable ASCII only: a URL parser drops tabs and line breaks, and maps letters such as 。 and ① to others.
  if (!/^[\x21-\x7e]+$/.test(text))
    refuse('write it in ASCII without spaces; names of hosts in punycode, the rest percent-encoded')
  if (text.includes('\\')) refuse('it has a backslash')
  const [, scheme = '', authority = ''] =
    /^([a-z][a-z0-9+.-]*):\/\/([^/?#]+)/i.exec(text) ?? refuse('write it as https://host/path')
  const kind = `${scheme.toLowerCase()}:`
  if (kind !== 'http:' && kind !== 'https:') return refuse(`${kind}// is not fetched from`)
  if (!rules.schemes.has(kind)) return refuse(`${kind}// is not allowed here`)
  if (authority.includes('@')) refuse('it names a user; imports send no credentials')
  const [, host = '', portText] =
    /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?$/i.exec(authority) ?? refuse('its host is not well-formed')

  const url = URL.canParse(text) ? new URL(text) : refuse('it is not well-formed')
  if (url.username !== '' || url.password !== '') refuse('it names a user')
  const plain = url.hostname.replace(/^\[|\]$/g, '')
  if (isIP(plain) === 4 && plain !== host) refuse(`write the address ${plain} in four decimal parts`)
  if (isIP(plain) === 0 && plain !== host.toLowerCase()) refuse('its host is not in normal form')
  if (isIP(plain) === 0 && (plain.endsWith('.') || plain.startsWith('.') || plain.includes('..') || plain.length > 253)) {
    refuse('its host has an empty part or is too long')
  }
  const port = portText === undefined ? defaultPort(kind) : Number(portText)
  if (!rules.ports.has(port)) refuse(`port ${port} is not among those that imports may use`)
  return {
    href: `${kind}//${url.host}${url.pathname}${url.search}`,
    scheme: kind,
    host: plain,
    port,
    authority: url.host,
    pathAndQuery: `${url.pathname}${url.search}`,
  }
}

const defaultPort = (scheme: 'http:' | 'https:'): number => (scheme === 'https:' ? 443 : 80)
