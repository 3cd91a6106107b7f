import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { ADMIN_PASSWORD, startService } from '../real-service.suite.ts'
import { freshHome, run } from '../run-cli.suite.ts'

const main = new URL('../../main.ts', import.meta.url).pathname

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
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`
const python = spawnSync('python3', ['-c', 'import pty']).status === 0
const skip = python ? false : 'python3, which makes the terminal, is not installed'

async function onTerminal(words: readonly string[], steps: readonly (readonly [string, string])[], home: string) {
  const argument = JSON.stringify([[process.execPath, main, ...words], steps])
  const child = spawn('python3', ['-c', TERMINAL, argument], { env: { PATH: process.env.PATH, HOME: home, TERM: 'xterm' } })
  let shown = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    shown += text
  })
  const [status] = await once(child, 'close')
  return { status, shown }
}

test('on a terminal, login asks for user and password and does not show the password', { skip }, async (t) => {
  const service = await startService()
  t.after(() => service.close())
  const home = freshHome()
  const steps = [
    ['User: ', 'adn\u007fmin\r'],
    ['Password of admin', `${ADMIN_PASSWORD}\r`],
  ] as const
  const { status, shown } = await onTerminal(['login', service.url], steps, home)
  assert.equal(status, 0, shown)
  assert.ok(!shown.includes(ADMIN_PASSWORD))
  assert.match(shown, /Logged in at/)
  assert.equal((await run(['whoami', '--json'], { environment: { HOME: home } })).json.user, 'admin')

  const interrupted = await onTerminal(['login', service.url], [['User: ', '\u0003']], freshHome())
  assert.equal(interrupted.status, 130, interrupted.shown)
})
