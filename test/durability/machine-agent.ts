/** `imprint agent` as a process that a test may kill. */
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { connect } from 'node:net'
import { join, resolve } from 'node:path'
import { type Daemon, startDaemon } from '../peers/daemon.ts'

const main = resolve(import.meta.dirname, '../../src/main.ts')

/** @param data its folder: the socket is `agent.sock` in it */
export async function startAgent(data: string, env: Readonly<Record<string, string>> = {}): Promise<Daemon> {
  await mkdir(data, { recursive: true })
  return startDaemon({
    name: 'agent',
    folder: data,
    command: [process.execPath, main, 'agent'],
    env: {
      IMPRINT_DATA: data,
      IMPRINT_LOG_LEVEL: 'warn',
      IMPRINT_INSTANCE_ACCELERATOR: 'tcg',
      NODE_TEST_CONTEXT: undefined, // it is no test file
      ...env,
    },
    ready: () => answers(join(data, 'agent.sock')),
  })
}

async function answers(path: string): Promise<boolean> {
  const socket = connect({ path })
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
