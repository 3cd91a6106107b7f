import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { missingTool } from './command.ts'
import { freePort, type Peer, scratchFolder, startDaemon, together } from './daemon.ts'
import { type GlancePeer, startGlance } from './glance.ts'
import { type KeystonePeer, startKeystone } from './keystone.ts'
import { type MariadbPeer, startMariadb } from './mariadb.ts'

/** Debian's Keystone and Glance as they are run in production: MariaDB, memcached, uWSGI. */
export interface DebianCloud extends Peer {
  readonly keystone: KeystonePeer
  readonly glance: GlancePeer
  readonly mariadb: MariadbPeer
}

/** Why it cannot be started here; `false` where it can. */
export function noDebianCloud(): string | false {
  if (process.getuid?.() !== 0) return 'only root may read the settings of Debian’s Glance'
  return missingTool('keystone-manage', 'glance-manage', 'uwsgi', 'setpriv', 'mariadbd', 'memcached')
}

/** @param importPorts ports of loopback that Glance may fetch images from */
export const startDebianCloud = (importPorts: readonly number[] = []): Promise<DebianCloud> =>
  startTogether(async (started, shared) => {
    const database = await shared.mariadb.database('glance')
    const glance = await started('glance', (folder) => startGlance({ ...shared, folder, database, importPorts }))
    return { glance, keystone: shared.keystone, mariadb: shared.mariadb }
  })

/** Keystone alone; its catalog names an image service, at which nobody answers. */
export const startDebianKeystone = (): Promise<Peer & { readonly keystone: KeystonePeer }> =>
  startTogether(async (_, { keystone }) => {
    await keystone.registerImageService('http://127.0.0.1:1')
    return { keystone }
  })

type Start = <T extends Peer>(name: string, start: (folder: string) => Promise<T>) => Promise<T>
interface Shared {
  readonly mariadb: MariadbPeer
  /** host:port */
  readonly memcached: string
  readonly keystone: KeystonePeer
}

/** Starts what every part needs, then `more`; stops all of it together, also where something does not start. */
async function startTogether<T extends object>(more: (started: Start, shared: Shared) => Promise<T>): Promise<Peer & T> {
  const scratch = await scratchFolder('debian-cloud')
  const parts: Peer[] = [scratch]
  const started: Start = async (name, start) => {
    const folder = join(scratch.path, name)
    await mkdir(folder)
    const peer = await start(folder)
    parts.push(peer)
    return peer
  }
  try {
    const mariadb = await started('mariadb', startMariadb)
    const memcached = (await started('memcached', startMemcached)).address
    const database = await mariadb.database('keystone')
    const keystone = await started('keystone', (folder) => startKeystone({ folder, database, memcached }))
    return together('debian-cloud', parts, await more(started, { mariadb, memcached, keystone }))
  } catch (error) {
    await together('debian-cloud', parts, {}).stop()
    throw error
  }
}

async function startMemcached(folder: string): Promise<Peer & { readonly address: string }> {
  const port = await freePort()
  const listens = async () => {
    const socket = connect(port, '127.0.0.1')
    await once(socket, 'connect')
    socket.destroy()
    return true
  }
  const command = ['memcached', '-u', 'root', '-l', '127.0.0.1', '-p', String(port), '-m', '64'] as const
  const daemon = await startDaemon({ name: 'memcached', folder, command, ready: listens })
  return { name: 'memcached', address: `127.0.0.1:${port}`, stop: daemon.stop }
}
