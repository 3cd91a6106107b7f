import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { must } from './command.ts'
import { freePort, type Peer } from './daemon.ts'
import { IdentityClient, logIn } from './identity-client.ts'
import { iniText } from './ini.ts'
import { startUwsgi } from './uwsgi.ts'

export interface KeystonePeer extends Peer {
  /** With `/v3` at the end. */
  readonly url: string
  /** Tells Keystone where Glance is; returns the endpoint's id. */
  registerImageService(imageUrl: string): Promise<string>
}
export interface KeystoneOptions {
  readonly folder: string
  /** SQLAlchemy's name of an empty database. */
  readonly database: string
  /** host:port */
  readonly memcached: string
}

/** Debian's Keystone on a free port, with `admin`/`admin` in project `admin` and Glance's own user. */
export async function startKeystone(options: KeystoneOptions): Promise<KeystonePeer> {
  const { folder } = options
  await mkdir(folder, { recursive: true })
  const port = await freePort()
  const url = `http://127.0.0.1:${port}/v3`
  const keys = { fernet: join(folder, 'fernet'), credential: join(folder, 'credential') }
  for (const path of Object.values(keys)) await makeKeys(path)
  const configuration = join(folder, 'keystone.conf')
  const sections = {
    DEFAULT: { log_file: join(folder, 'service.log') },
    database: { connection: options.database },
    cache: { enabled: true, backend: 'dogpile.cache.memcached', memcache_servers: options.memcached },
    token: { expiration: 86_400 }, // a benchmark of all cases takes longer than the usual hour
    fernet_tokens: { key_repository: keys.fernet },
    credential: { key_repository: keys.credential },
  }
  await writeFile(configuration, iniText(sections))
  const manage = (...args: string[]) => must(['keystone-manage', '--config-file', configuration, ...args], { cwd: folder })
  await manage('db_sync')
  const urls = ['admin', 'internal', 'public'].flatMap((kind) => [`--bootstrap-${kind}-url`, url])
  await manage('bootstrap', '--bootstrap-password', 'admin', '--bootstrap-region-id', 'RegionOne', ...urls)
  const daemon = await startUwsgi({
    name: 'keystone',
    folder,
    port,
    workers: 2,
    threads: 16,
    application: '/usr/bin/keystone-wsgi-public',
    env: { OS_KEYSTONE_CONFIG_FILES: configuration },
  })
  try {
    return { name: 'keystone', url, registerImageService: await makeServiceAccount(url), stop: daemon.stop }
  } catch (error) {
    await daemon.stop()
    throw error
  }
}

/** Glance's own user; returns how to register Glance in the catalog. */
async function makeServiceAccount(url: string): Promise<(imageUrl: string) => Promise<string>> {
  const client = new IdentityClient(url, await logIn(url, { user: 'admin', password: 'admin', project: 'admin' }))
  const roles = ['admin', 'service']
  const glance = await client.ensureAccount({ user: 'glance', password: 'glance', project: 'service', roles })
  for (const name of ['reader', 'admin']) {
    await client.call('PUT', `/system/users/${glance.userId}/roles/${(await client.ensure('roles', name)).id}`)
  }
  return async (imageUrl) => {
    const service = await client.ensure('services', 'glance', { type: 'image' })
    const register = (kind: string) => {
      const endpoint = { service_id: service.id, interface: kind, url: imageUrl, region_id: 'RegionOne' }
      return client.call<{ endpoint: { id: string } }>('POST', '/endpoints', { endpoint })
    }
    const made = [await register('public'), await register('internal'), await register('admin')]
    return made[0]!.endpoint.id
  }
}

/** A Fernet key repository: key 0 is the next one, key 1 the one in use; 32 bytes each, base64url. */
async function makeKeys(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  for (const name of ['0', '1']) {
    const key = `${randomBytes(32).toString('base64url')}=`
    await writeFile(join(folder, name), key, { mode: 0o600 })
  }
}
