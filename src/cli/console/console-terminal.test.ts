import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { MiB } from '../../base/units.ts'
import { ADMIN_PASSWORD, startService } from '../real-service.suite.ts'
import { run, userOf } from '../run-cli.suite.ts'
import { noTerminal, onTerminal, shellOnTerminal } from '../terminal.suite.ts'

test('on a terminal, run asks before it downloads, and no means no', { skip: noTerminal }, async (t) => {
  const service = await startService()
  t.after(() => service.close())
  const environment = {
    ...userOf(service.url, 'admin', ADMIN_PASSWORD, 'admin'),
    IMPRINT_VENDOR_IMAGES: 'http://127.0.0.1:9', // discard: nobody answers, and nobody shall be asked
  }
  const refused = await onTerminal(['run', 'debian'], [['Download it from cloud.debian.org? [Y/n]', 'n\r']], environment)
  assert.equal(refused.status, 3, refused.shown)
  assert.match(refused.shown, /imprint run debian --pull/)
  const agreed = await onTerminal(['run', 'debian-12'], [['Debian 12 is not here yet.', '\r']], environment)
  assert.equal(agreed.status, 7, agreed.shown)
  assert.match(agreed.shown, /127\.0\.0\.1:9 cannot be reached/)
})

test('on a terminal every key goes to the guest but Ctrl-], and the terminal is as it was afterwards', {
  skip: noTerminal,
}, async (t) => {
  const service = await startService()
  t.after(async () => {
    await service.instances.tasks.idle()
    await service.images.jobs.idle()
    await service.close()
  })
  const environment = userOf(service.url, 'admin', ADMIN_PASSWORD, 'admin')
  const disk = join(mkdtempSync(join(tmpdir(), 'imprint-console-')), 'tiny')
  writeFileSync(disk, randomBytes(MiB))
  assert.equal((await run(['image', 'add', disk], { environment })).status, 0)
  const made = await run(['run', 'tiny', '--name', 'web', '--json'], { environment })
  const machine = service.host.machine(made.json[0].id)
  const heard: string[] = []
  service.host.guest = {
    ...service.host.guest,
    typed(_, bytes) {
      heard.push(Buffer.from(bytes).toString('latin1'))
      machine.print(`got ${heard.join('').length}\r\n`)
    },
  }

  // the shell asks stty before and after: what raw mode changes is in its answer
  const line = 'before=$(stty -g); "$1" "$2" console web; status=$?; [ "$before" = "$(stty -g)" ] && echo same; exit $status'
  const left = await shellOnTerminal(
    line,
    [
      ['leaves it', 'ls\r'],
      ['got 3', '\x03\x1a'],
      ['got 5', '\x1d'],
    ],
    environment,
  )
  assert.equal(left.status, 0, left.shown)
  assert.match(left.shown, /ready[\s\S]*got 3[\s\S]*got 5[\s\S]*same/)
  assert.equal(heard.join(''), 'ls\r\x03\x1a')

  const ended = onTerminal(['console', 'web'], [['leaves it', 'x']], environment)
  const typed = Promise.withResolvers<void>()
  service.host.guest = { ...service.host.guest, typed: () => typed.resolve() }
  await typed.promise
  machine.print('Power down\r\n')
  machine.powerOff()
  const { status, shown } = await ended
  assert.equal(status, 0, shown)
  assert.match(shown, /Power down[\s\S]*The console ended: the machine went off\./)
})
