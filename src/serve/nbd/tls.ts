import { AsyncLocalStorage } from 'node:async_hooks'
import { constants } from 'node:crypto'
import type { Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { Disconnected } from './handshake-reader.ts'

/** How clients may, or must, encrypt. At least one of `certificate` and `pskOf`. */
export interface NbdTls {
  /** required: nothing but STARTTLS and ABORT is answered before it. offered: clients that do not ask stay in clear text. */
  readonly mode: 'required' | 'offered'
  /** PEM. With `clientAuthority`, clients must show a certificate that it signed. */
  readonly certificate?: { readonly cert: Uint8Array; readonly key: Uint8Array; readonly clientAuthority?: Uint8Array }
  /** Pre-shared keys by user name, as `psktool` makes them; undefined for a user that is not known. Must not block. */
  readonly pskOf?: (user: string) => Uint8Array | undefined
}

/**
 * OpenSSL's names. A pre-shared key of TLS 1.3 works with SHA-256 only, so AES-128 stands first: with another first, a server that has
 * a certificate too would show that in place of taking the key.
 */
const TLS13_CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384'
const PSK_CIPHERS = 'ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-AES128-GCM-SHA256:DHE-PSK-AES256-GCM-SHA384'
const CERTIFICATE_CIPHERS = 'ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL'

/** Makes sockets secure. Keys are read once, when it is made. */
export interface TlsUpgrade {
  readonly mode: NbdTls['mode']
  /** @throws Disconnected when the client's handshake fails */
  secure(socket: Socket): Promise<SecuredPeer>
}
export interface SecuredPeer {
  readonly socket: TLSSocket
  readonly identity: string | null
}

export function createTlsUpgrade(tls: NbdTls): TlsUpgrade {
  const { certificate, pskOf } = tls
  if (!certificate && !pskOf) throw new Error('TLS of the NBD server: give a certificate, pre-shared keys, or both')
  const mustShowCertificate = certificate?.clientAuthority !== undefined
  const ciphers = [TLS13_CIPHERS, ...(pskOf ? [PSK_CIPHERS] : []), ...(certificate ? [CERTIFICATE_CIPHERS] : [])].join(':')
  /** Which upgrade a secured socket belongs to: Node's server, the one part that judges client certificates, does not say. */
  const upgrades = new AsyncLocalStorage<Upgrade>()
  const server = createServer({
    minVersion: 'TLSv1.2',
    secureOptions: constants.SSL_OP_NO_TICKET, // a resumed session would not say whose it is
    ciphers,
    handshakeTimeout: 2 ** 31 - 1, // the whole handshake has its deadline in server.ts
    requestCert: mustShowCertificate,
    rejectUnauthorized: false, // judged below: a client with a key has no certificate to show
    ...(certificate ? { cert: Buffer.from(certificate.cert), key: Buffer.from(certificate.key) } : {}),
    ...(certificate?.clientAuthority ? { ca: Buffer.from(certificate.clientAuthority) } : {}),
    ...(pskOf
      ? {
          pskCallback: (_socket: TLSSocket, user: string) => {
            const key = pskOf(user)
            const upgrade = upgrades.getStore()
            if (key && upgrade) upgrade.pskUser = user
            return key ?? null
          },
        }
      : {}),
  })
  server.on('secureConnection', (socket) => upgrades.getStore()?.secured(socket))
  server.on('tlsClientError', (_error, socket) => socket.destroy())
  return {
    mode: tls.mode,
    secure: (socket) =>
      new Promise((done, fail) => {
        const upgrade: Upgrade = {
          pskUser: null,
          secured: (secure) => {
            secure.on('error', () => secure.destroy())
            if (mustShowCertificate && !secure.authorized && upgrade.pskUser === null) {
              secure.destroy()
              return
            }
            const name: unknown = secure.authorized && upgrade.pskUser === null ? secure.getPeerCertificate().subject?.CN : null
            done({ socket: secure, identity: upgrade.pskUser ?? (typeof name === 'string' ? name : null) })
          },
        }
        socket.once('close', () => fail(new Disconnected()))
        upgrades.run(upgrade, () => server.emit('connection', socket))
      }),
  }
}

interface Upgrade {
  pskUser: string | null
  secured(socket: TLSSocket): void
}
