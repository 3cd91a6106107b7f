/** `imprint migrate` against a real service with two hosts, whose machines are in memory. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { MiB } from '../../base/units.ts'
import { ADMIN_PASSWORD, startService } from '../real-service.suite.ts'
import { run, userOf } from '../run-cli.suite.ts'

async function world(context: TestContext, otherHost?: string) {
  const service = await startService(otherHost ? { otherHost } : {})
  const environment = userOf(service.url, 'admin', ADMIN_PASSWORD, 'admin')
  context.after(async () => {
    await service.instances.tasks.idle()
    await service.images.jobs.idle()
    await service.close()
  })
  const imprint = (...words: string[]) => run(words, { environment })
  const path = join(mkdtempSync(join(tmpdir(), 'imprint-migrate-')), 'tiny')
  writeFileSync(path, randomBytes(MiB))
  await imprint('image', 'add', path, '--name', 'tiny', '--property', 'os_distro=tiny')
  const made = await imprint('run', 'tiny', '--name', 'web', '--no-wait')
  assert.equal(made.status, 0, made.err)
  await service.instances.tasks.idle()
  return imprint
}

test('an instance is moved, and it is told from where, to where, and for how long it stood still', async (context) => {
  const imprint = await world(context, 'left')
  const there = await imprint('migrate', 'web', '--to', 'left')
  assert.equal(there.status, 0, there.err)
  assert.match(
    there.out,
    new RegExp(`^web \\(.*\\) went from ${hostname()} to left; it stood still for 0 ms, 1 B moved\\.$`, 'm'),
  )
  const { json } = await imprint('migrate', 'web', '--json')
  assert.deepEqual([json.name, json.from, json.to, json.downtimeMs], ['web', 'left', hostname(), 0])
  assert.match((await imprint('migrate', 'web', '--no-wait')).out, /is being moved/)
})

test('where it cannot go is refused with the hosts that there are', async (context) => {
  const imprint = await world(context)
  const refused = await imprint('migrate', 'web', '--to', 'nowhere')
  assert.equal(refused.status, 1, refused.err)
  assert.match(refused.err, new RegExp(`none but "${hostname()}"`))
})
