import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { CommandResult } from '../peers/command.ts'

type Environment = Readonly<Record<string, string | undefined>>

interface Clients {
  run(line: readonly string[], env: Environment): Promise<CommandResult>
}

const TIMEOUT_S = 300 // a download of some GiB, on a busy machine
const started = new Map<string, Clients>()

/**
 * Runs an installed client of OpenStack to its end, with a terminal as its standard input. Does not throw for its exit code.
 *
 * @param folder where it runs, and where clients keep what they cache: one process by folder keeps loaded what they consist of
 *   (warm-clients.py), and ends with this one
 */
export function runClient(line: readonly string[], env: Environment, folder: string): Promise<CommandResult> {
  const clients = started.get(folder) ?? startClients(env, folder)
  started.set(folder, clients)
  return clients.run(line, env)
}

function startClients(env: Environment, folder: string): Clients {
  const child = spawn('/usr/bin/python3', [join(import.meta.dirname, 'warm-clients.py')], {
    cwd: folder,
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const waiting = new Map<number, { readonly done: (result: CommandResult) => void; readonly fail: (error: Error) => void }>()
  let last = 0
  createInterface({ input: child.stdout }).on('line', (text) => {
    const { id, code, stdout, stderr } = JSON.parse(text)
    waiting
      .get(id)
      ?.done(code < 0 ? { code: 128, stdout, stderr: `${stderr}\nended by signal ${-code}` } : { code, stdout, stderr })
    waiting.delete(id)
    if (waiting.size === 0) hold(child, false)
  })
  child.stdin.on('error', () => {}) // it ended: those who wait are told so
  void once(child, 'close').then(
    ([code]) => failAll(new Error(`warm-clients.py ended with ${code}`)),
    (error) => failAll(error),
  )
  const failAll = (error: Error) => {
    started.delete(folder)
    for (const { fail } of waiting.values()) fail(error)
  }
  return {
    run: (line, changes) =>
      new Promise((done, fail) => {
        last += 1
        waiting.set(last, { done, fail })
        hold(child, true)
        const env = { ...process.env, ...changes } // what is undefined, JSON leaves out
        child.stdin.write(`${JSON.stringify({ id: last, line, env, cwd: folder, timeoutSeconds: TIMEOUT_S })}\n`)
      }),
  }
}

/** Whether this process goes on for its answers: only while some are awaited. */
function hold(child: ChildProcess, isAwaited: boolean): void {
  for (const each of [child, child.stdin as Socket | null, child.stdout as Socket | null]) {
    if (isAwaited) each?.ref()
    else each?.unref()
  }
}
