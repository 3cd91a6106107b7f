import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import type { MachineFolder } from './machine-folder.ts'

/** Where QEMU brings what it sends: a socket in our own folder, for QEMU could put something else in the place of one in its own. */
export interface Door {
  /** As QEMU's `migrate` takes it. */
  readonly uri: string
  /** As QEMU's NBD client takes it. */
  readonly path: string
  /** The first one that came. */
  readonly connection: Promise<Socket>
  /** Harmless when done again. */
  readonly close: () => void
}

/** @param name of a purpose: letters and digits */
export async function openDoor(folder: MachineFolder, name: string): Promise<Door> {
  const { path, fromRun } = folder.outgoing(name)
  rmSync(path, { force: true })
  const connection = Promise.withResolvers<Socket>()
  let first: Socket | null = null
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy())
    if (first) {
      socket.destroy()
      return
    }
    first = socket
    connection.resolve(socket)
  })
  server.listen(path)
  await once(server, 'listening')
  await folder.lend(path)
  return {
    uri: `unix:${fromRun}`,
    path: fromRun,
    connection: connection.promise,
    close: () => {
      server.close() // unlinks it
      first?.destroy()
    },
  }
}
