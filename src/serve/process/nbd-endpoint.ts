import { chmodSync, chownSync } from 'node:fs'
import { isIP } from 'node:net'
import { join, resolve } from 'node:path'
import { ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import type { Settings } from '../../settings/settings.ts'
import type { NbdCounters } from '../nbd/counters.ts'
import type { ExportSource } from '../nbd/export.ts'
import type { NbdLog } from '../nbd/log.ts'
import { createNbdServer, type NbdServer } from '../nbd/server.ts'
import { freeSocket, MAX_SOCKET_PATH_BYTES } from '../nbd/socket-file.ts'
import { hostAndPort } from './address.ts'
import { type NbdTlsSettings, nbdTlsOf } from './nbd-tls.ts'

export type NbdSettings = NbdTlsSettings & Pick<Settings, 'data' | 'nbdSocket' | 'nbdListen' | 'nbdAllowClearText'>

/** Where the service serves disks over NBD. */
export interface NbdAddresses {
  readonly socketPath: string
  /** `host` as it was set: it may stand for every address of the machine. Null: not over TCP. */
  readonly tcp: { readonly host: string; readonly port: number; readonly isSecure: boolean } | null
}

export interface NbdEndpoint {
  readonly addresses: NbdAddresses
  /** By the way that clients come. */
  counters(): Readonly<Partial<Record<'unix' | 'tcp', Readonly<NbdCounters>>>>
  /** Requests under way finish, connections end. */
  close(): Promise<void>
}

/** What is shared by all connections is divided between the two ways in. */
const SHARED_BYTES = 128 * MiB

/**
 * @returns the whole path of the socket
 * @throws ServiceError `invalid-request` where the system cannot bind so long a path
 */
export function nbdSocketPath({ data, nbdSocket }: Pick<NbdSettings, 'data' | 'nbdSocket'>): string {
  const path = nbdSocket ? resolve(nbdSocket) : join(resolve(data), 'nbd.sock')
  const bytes = Buffer.byteLength(path)
  if (bytes <= MAX_SOCKET_PATH_BYTES) return path
  throw new ServiceError(
    'invalid-request',
    `the socket for NBD would be ${path}, which has ${bytes} bytes; the system takes ${MAX_SOCKET_PATH_BYTES}: choose a shorter path with --nbd-socket`,
    { bytes, most: MAX_SOCKET_PATH_BYTES },
  )
}

/**
 * Serves `exports` on the unix socket, which only the service's own user may open, and on TCP where the settings ask for it.
 * @param reader who may open the socket beside the service, where that is root
 * @throws ServiceError `invalid-request`, `conflict`, naming the setting
 */
export async function openNbd(
  settings: NbdSettings,
  exports: ExportSource,
  log: NbdLog,
  reader?: { readonly uid: number; readonly gid: number },
): Promise<NbdEndpoint> {
  const socketPath = nbdSocketPath(settings)
  const tls = nbdTlsOf(settings)
  if (settings.nbdListen !== '') assertMayListen(settings, tls !== undefined)
  const limits = settings.nbdListen === '' ? {} : { sharedBytes: SHARED_BYTES }
  const unix = createNbdServer({ exports, limits, log })
  await freeSocket(socketPath, '--nbd-socket')
  await unix.listen({ path: socketPath })
  chmodSync(socketPath, 0o600)
  if (reader) chownSync(socketPath, reader.uid, reader.gid)
  let tcp: { readonly server: NbdServer; readonly address: NonNullable<NbdAddresses['tcp']> } | null = null
  try {
    if (settings.nbdListen !== '') {
      const server = withNamedTls(() => createNbdServer({ exports, limits, log, ...(tls ? { tls } : {}) }))
      const bound = await server.listen(hostAndPort(settings.nbdListen))
      if ('port' in bound) tcp = { server, address: { ...bound, isSecure: tls !== undefined } }
    }
  } catch (error) {
    await unix.close(0)
    throw error
  }
  return {
    addresses: { socketPath, tcp: tcp?.address ?? null },
    counters: () => ({ unix: unix.counters, ...(tcp ? { tcp: tcp.server.counters } : {}) }),
    close: async () => {
      await Promise.all([unix.close(), tcp?.server.close()])
    },
  }
}

/** Names that travel in clear text open disks to whoever listens on the way. */
function assertMayListen({ nbdListen, nbdAllowClearText }: NbdSettings, isSecure: boolean): void {
  const { host } = hostAndPort(nbdListen)
  if (isSecure || nbdAllowClearText === 'yes' || isLoopback(host)) return
  throw new ServiceError(
    'invalid-request',
    `nbdListen: ${nbdListen} can be reached from other machines, and without TLS everyone on the way reads the disks and their names: set nbdTlsCertificate and nbdTlsKey, or nbdPskFile; or listen on 127.0.0.1; or, on a network that you trust, set nbdAllowClearText to yes`,
  )
}
const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))

/** OpenSSL's words for a bad key mean little without the setting that named it. */
function withNamedTls(create: () => NbdServer): NbdServer {
  try {
    return create()
  } catch (cause) {
    const message = `nbdTlsCertificate, nbdTlsKey, nbdTlsClientCa: ${(cause as Error).message}`
    throw new ServiceError('invalid-request', message, {}, { cause })
  }
}
