/** Runs the program on a terminal of its own, for tests of what it does there. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import type { Environment } from './output.ts'

const main = new URL('../main.ts', import.meta.url).pathname

/** Answers each question when it has been asked, and prints all that the terminal showed. */
const TERMINAL = `
import json, os, pty, sys
command, steps = json.loads(sys.argv[1])
pid, terminal = pty.fork()
if pid == 0: os.execvp(command[0], command)
shown, at = b'', 0
while True:
    try: data = os.read(terminal, 4096)
    except OSError: break
    if not data: break
    shown += data
    if steps and steps[0][0].encode() in shown[at:]:
        at = len(shown)
        os.write(terminal, steps.pop(0)[1].encode())
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.stdout.buffer.write(shown)
sys.exit(status)
`
export const noTerminal: string | false =
  spawnSync('python3', ['-c', 'import pty']).status === 0 ? false : 'python3, which makes the terminal, is not installed'

/** @param steps what is typed when something was shown */
export async function onTerminal(
  words: readonly string[],
  steps: readonly (readonly [shown: string, typed: string])[],
  environment: Environment,
): Promise<{ readonly status: number; readonly shown: string }> {
  return program([process.execPath, main, ...words], steps, environment)
}

/** As `onTerminal`, of a shell's line. */
export async function shellOnTerminal(
  line: string,
  steps: readonly (readonly [shown: string, typed: string])[],
  environment: Environment,
): Promise<{ readonly status: number; readonly shown: string }> {
  return program(['sh', '-c', line, 'sh', process.execPath, main], steps, environment)
}

async function program(
  command: readonly string[],
  steps: readonly (readonly [string, string])[],
  environment: Environment,
): Promise<{ readonly status: number; readonly shown: string }> {
  const env = { PATH: process.env.PATH, TERM: 'xterm', ...environment } as NodeJS.ProcessEnv
  const child = spawn('python3', ['-c', TERMINAL, JSON.stringify([command, steps])], { env })
  let shown = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    shown += text
  })
  const [status] = await once(child, 'close')
  return { status: status as number, shown }
}
