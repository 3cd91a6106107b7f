import { readFileSync } from 'node:fs'
import { ServiceError } from '../../base/errors.ts'
import type { Settings } from '../../settings/settings.ts'
import type { NbdTls } from '../nbd/tls.ts'

export type NbdTlsSettings = Pick<Settings, 'nbdTlsCertificate' | 'nbdTlsKey' | 'nbdTlsClientCa' | 'nbdPskFile'>

/**
 * TLS of the TCP port, as the settings ask for it; undefined where they do not. Who asks for it gets it: it is required.
 * @throws ServiceError `invalid-request` naming the setting
 */
export function nbdTlsOf(settings: NbdTlsSettings): NbdTls | undefined {
  const { nbdTlsCertificate: cert, nbdTlsKey: key, nbdTlsClientCa: authority, nbdPskFile } = settings
  if ((cert === '') !== (key === '')) throw wrong('nbdTlsCertificate and nbdTlsKey belong together: give both or neither')
  if (authority !== '' && cert === '') throw wrong('nbdTlsClientCa needs nbdTlsCertificate and nbdTlsKey')
  if (cert === '' && nbdPskFile === '') return undefined
  return {
    mode: 'required',
    ...(cert === ''
      ? {}
      : {
          certificate: {
            cert: readNamed('nbdTlsCertificate', cert),
            key: readNamed('nbdTlsKey', key),
            ...(authority === '' ? {} : { clientAuthority: readNamed('nbdTlsClientCa', authority) }),
          },
        }),
    ...(nbdPskFile === '' ? {} : { pskOf: keysIn(readNamed('nbdPskFile', nbdPskFile).toString('utf8')) }),
  }
}

/** Lines of `user:hexadecimal`, as `psktool` writes them. */
function keysIn(text: string): (user: string) => Uint8Array | undefined {
  const keys = new Map<string, Uint8Array>()
  for (const [at, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue
    const [, user, key] = /^([^:]+):((?:[0-9a-f]{2})+)$/i.exec(line.trim()) ?? []
    if (user === undefined || key === undefined) {
      throw wrong(`nbdPskFile: line ${at + 1} is not user:key, with the key in hexadecimal; psktool writes such files`)
    }
    keys.set(user, Buffer.from(key, 'hex'))
  }
  if (keys.size === 0) throw wrong('nbdPskFile: the file holds no key; make one with: psktool -u USER -p FILE')
  return (user) => keys.get(user)
}

function readNamed(setting: string, path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    throw new ServiceError('invalid-request', `${setting}: cannot read ${path}: ${(cause as Error).message}`, {}, { cause })
  }
}

const wrong = (message: string): ServiceError => new ServiceError('invalid-request', message)
