import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ADMIN_PASSWORD, startService } from '../real-service.suite.ts'
import { freshHome, run } from '../run-cli.suite.ts'
import { noTerminal, onTerminal } from '../terminal.suite.ts'

test('on a terminal, login asks for user and password and does not show the password', { skip: noTerminal }, async (t) => {
  const service = await startService()
  t.after(() => service.close())
  const home = freshHome()
  const steps = [
    ['User: ', 'adn\u007fmin\r'],
    ['Password of admin', `${ADMIN_PASSWORD}\r`],
  ] as const
  const { status, shown } = await onTerminal(['login', service.url], steps, { HOME: home })
  assert.equal(status, 0, shown)
  assert.ok(!shown.includes(ADMIN_PASSWORD))
  assert.match(shown, /Logged in at/)
  assert.equal((await run(['whoami', '--json'], { environment: { HOME: home } })).json.user, 'admin')

  const interrupted = await onTerminal(['login', service.url], [['User: ', '\u0003']], { HOME: freshHome() })
  assert.equal(interrupted.status, 130, interrupted.shown)
})
