import { spawn } from 'node:child_process'

/** Where programs for administrators lie, also for a user whose PATH does not name them. */
const SYSTEM_FOLDERS = '/usr/sbin:/sbin:/usr/bin:/bin'
/** A shell says by such a status that what it ran was ended by a signal: POSIX, Shell & Utilities 2.8.2. */
const FIRST_SIGNAL_STATUS = 129

export interface ToolOptions {
  /** Its file descriptor 3, and that of what it starts. */
  readonly fd?: number
  /** Ends it and what it started. */
  readonly signal?: AbortSignal
}
/** Its exit status; `absent`: there is no such program; `ended`: by a signal, so nothing is known of what it can. */
export type ToolEnd = number | 'absent' | 'ended'

/**
 * Runs a program of the system, in a process group of its own: Ctrl-C on the terminal reaches only us.
 * @returns when it and what it started are gone
 */
export function runTool(program: string, words: readonly string[], { fd, signal }: ToolOptions = {}): Promise<ToolEnd> {
  if (signal?.aborted) return Promise.resolve('ended')
  return new Promise((done) => {
    const child = spawn(program, words, {
      detached: true,
      stdio: ['ignore', 'pipe', 'ignore', fd ?? 'ignore'], // a pipe is closed when the last of them is gone
      env: { PATH: `${process.env.PATH ?? ''}:${SYSTEM_FOLDERS}` },
    })
    child.stdout?.resume()
    const end = () => void (child.pid !== undefined && killGroup(child.pid))
    signal?.addEventListener('abort', end, { once: true })
    const settle = (how: ToolEnd) => {
      signal?.removeEventListener('abort', end)
      done(how)
    }
    child.on('error', () => settle('absent'))
    child.on('close', (status) => settle(status === null || status >= FIRST_SIGNAL_STATUS ? 'ended' : status))
  })
}

function killGroup(leader: number): void {
  try {
    process.kill(-leader, 'SIGTERM')
  } catch {
    // it has ended by itself
  }
}
