/** Where the service serves disks over NBD. */
export interface NbdAddresses {
  readonly socketPath: string
  /** `host` as it was set: it may stand for every address of the machine. */
  readonly tcp: { readonly host: string; readonly port: number; readonly isSecure: boolean } | null
}

export interface ExportUris {
  /** For programs on the machine of the service, run by its user. */
  readonly unix: string
  readonly tcp: string | null
}

const EVERY_ADDRESS = new Set(['0.0.0.0', '::', '[::]'])
const PLAIN_HOST = /^([a-z0-9.-]+|\[?[0-9a-f:.]+\]?)$/i

/**
 * NBD addresses of an export, as libnbd and QEMU read them.
 * @param name as `newName` makes it: nothing in it needs escaping
 * @param askedHost how the client reached the service, which it repeats where NBD answers on every address; a client's word
 */
export function exportUris({ socketPath, tcp }: NbdAddresses, name: string, askedHost: string): ExportUris {
  const path = socketPath.split('/').map(encodeURIComponent).join('/')
  return { unix: `nbd+unix:///${name}?socket=${path}`, tcp: tcp && tcpUri(tcp, name, askedHost) }
}

function tcpUri({ host, port, isSecure }: NonNullable<NbdAddresses['tcp']>, name: string, askedHost: string): string | null {
  const reached = EVERY_ADDRESS.has(host) ? askedHost : host
  if (!PLAIN_HOST.test(reached)) return null
  const shown = reached.includes(':') && !reached.startsWith('[') ? `[${reached}]` : reached
  return `${isSecure ? 'nbds' : 'nbd'}://${shown}:${port}/${name}`
}
