import type { Settings } from '../../settings/settings.ts'

type Listening = Pick<Settings, 'listen' | 'publicUrl' | 'tlsCertificate'>

/** `[::1]:9797` → `::1` and 9797. */
export function hostAndPort(listen: string): { host: string; port: number } {
  const colon = listen.lastIndexOf(':')
  return { host: listen.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(listen.slice(colon + 1)) }
}

/** What a person types to reach the service. @param port the one that was bound, where the settings leave it open */
export function addressFor(settings: Listening, port: number): string {
  if (settings.publicUrl) return settings.publicUrl
  return `${settings.tlsCertificate ? 'https' : 'http'}://${settings.listen.slice(0, settings.listen.lastIndexOf(':'))}:${port}`
}

const PLAIN_HOST = /^([a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?$/i

/**
 * The address that a request came to, for links: the way that the client came, unless the operator says otherwise. A Host header
 * is a client's word: only a plain one is repeated.
 */
export function baseUrl(settings: Listening): (request: { readonly protocol: string; readonly host: string }) => string {
  return ({ protocol, host }) => settings.publicUrl || `${protocol}://${PLAIN_HOST.test(host) ? host : settings.listen}`
}
