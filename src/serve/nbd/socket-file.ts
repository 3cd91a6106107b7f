import { lstatSync, unlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { ServiceError } from '../../base/errors.ts'

/** `sun_path` of Linux, without its last byte, which is zero. */
export const MAX_SOCKET_PATH_BYTES = 107

/**
 * A server that was killed leaves its socket behind; nobody answers there, so it goes.
 * @param option by which another path is chosen
 * @throws ServiceError `conflict` where somebody does, or it is no socket
 */
export async function freeSocket(path: string, option: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (!found) return
  if (!found.isSocket()) {
    throw new ServiceError('conflict', `${path} is no socket: move it away, or choose another path with ${option}`)
  }
  if (await answers(path)) {
    throw new ServiceError('conflict', `another program listens on ${path}: choose another path with ${option}`)
  }
  unlinkSync(path)
}

const answers = (path: string): Promise<boolean> =>
  new Promise((done) => {
    const socket = connect(path)
    const end = (isThere: boolean) => {
      socket.destroy()
      done(isThere)
    }
    socket.once('connect', () => end(true))
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code === 'EAGAIN')) // its backlog is full: it lives
  })
