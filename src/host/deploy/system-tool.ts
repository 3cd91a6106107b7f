import { spawn } from 'node:child_process'

/** Where programs for administrators lie, also for a user whose PATH does not name them. */
const SYSTEM_FOLDERS = '/usr/sbin:/sbin:/usr/bin:/bin'

/**
 * Runs a program of the system.
 * @param fd its file descriptor 3
 * @returns whether it was there and succeeded
 */
export function ranTool(program: string, words: readonly string[], fd?: number): Promise<boolean> {
  return new Promise((done) => {
    const child = spawn(program, words, {
      stdio: ['ignore', 'ignore', 'ignore', fd ?? 'ignore'],
      env: { PATH: `${process.env.PATH ?? ''}:${SYSTEM_FOLDERS}` },
    })
    child.on('error', () => done(false))
    child.on('close', (status) => done(status === 0))
  })
}
