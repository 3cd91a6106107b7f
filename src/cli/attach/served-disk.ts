import { randomUUID } from 'node:crypto'
import { chmodSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import type { Export, ExportSource } from '../../serve/nbd/export.ts'
import type { NbdLog } from '../../serve/nbd/log.ts'
import { createNbdServer } from '../../serve/nbd/server.ts'
import { freeSocket, MAX_SOCKET_PATH_BYTES } from '../../serve/nbd/socket-file.ts'
import type { Environment } from '../output.ts'

/** Requests under way have so long to finish when the disk goes; those that wait for a service that is away are failed then. */
const GRACE_MS = 3_000

export interface ServedDisk {
  readonly socketPath: string
  /** For QEMU, nbdinfo and others. */
  readonly uri: string
  close(): Promise<void>
}

export interface ServeOptions {
  readonly disk: BlockSource
  /** For people, in `nbdinfo`. */
  readonly description: string
  readonly preferredBytes: number
  /** Absent: in a folder that only this user may enter. */
  readonly socket: string | undefined
  readonly environment: Environment
  readonly log: NbdLog
}

/**
 * Serves one disk, read-only, on a unix socket of this user, as the export without a name. Closing it closes the disk.
 * @throws ServiceError `conflict`, `invalid-request` naming the option
 */
export async function serveDisk(options: ServeOptions): Promise<ServedDisk> {
  const { disk, socket, environment, log } = options
  const socketPath = socket === undefined ? await freshSocketPath(environment) : resolve(socket)
  const over = new AbortController()
  const server = createNbdServer({ exports: oneExport(options, over.signal), log })
  try {
    assertBindable(socketPath)
    await freeSocket(socketPath, '--socket')
    await server.listen({ path: socketPath })
    chmodSync(socketPath, 0o600)
  } catch (error) {
    if (socket === undefined) await rm(dirname(socketPath), { recursive: true, force: true })
    throw error
  }
  return {
    socketPath,
    uri: `nbd+unix:///?socket=${socketPath.split('/').map(encodeURIComponent).join('/')}`,
    async close() {
      const late = setTimeout(() => void disk.close(), GRACE_MS)
      await server.close(2 * GRACE_MS)
      clearTimeout(late)
      over.abort()
      await disk.close()
      if (socket === undefined) await rm(dirname(socketPath), { recursive: true, force: true })
    },
  }
}

function oneExport({ disk, description, preferredBytes }: ServeOptions, revoked: AbortSignal): ExportSource {
  const exported: Export = {
    disk,
    description,
    blockSizes: { minimumBytes: 1, preferredBytes },
    multiConnection: true,
    revoked,
    release: () => undefined,
  }
  return {
    open: async (name) => (name === '' ? exported : undefined),
    list: async () => [{ name: '', description }],
  }
}

async function freshSocketPath({ XDG_RUNTIME_DIR }: Environment): Promise<string> {
  const folder = await mkdtemp(join(XDG_RUNTIME_DIR || tmpdir(), 'imprint-')) // mode 0700
  return join(folder, `${randomUUID().slice(0, 8)}.sock`)
}

function assertBindable(path: string): void {
  const bytes = Buffer.byteLength(path)
  if (bytes <= MAX_SOCKET_PATH_BYTES) return
  const message = `the socket would be ${path}, which has ${bytes} bytes; the system takes ${MAX_SOCKET_PATH_BYTES}: choose a shorter path with --socket`
  throw new ServiceError('invalid-request', message, { bytes, most: MAX_SOCKET_PATH_BYTES })
}
