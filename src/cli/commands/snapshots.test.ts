/** The commands that keep and bring back what an instance was, against a real service, whose machines are in memory. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { MiB } from '../../base/units.ts'
import type { Environment } from '../output.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../real-service.suite.ts'
import { run, userOf } from '../run-cli.suite.ts'

let service: RealService
let admin: Environment
let id = ''

const did = async (...words: string[]) => {
  const said = await run(words, { environment: admin })
  assert.equal(said.status, 0, `${words.join(' ')}: ${said.err}`)
  return said
}
const json = async (...words: string[]) => (await did(...words, '--json')).json
const disk = () => service.host.machine(id)
const written = randomBytes(512)

before(async () => {
  service = await startService()
  admin = userOf(service.url, 'admin', ADMIN_PASSWORD, 'admin')
  const path = join(mkdtempSync(join(tmpdir(), 'imprint-snapshots-')), 'tiny')
  writeFileSync(path, randomBytes(MiB))
  await did('image', 'add', path, '--name', 'tiny', '--property', 'os_distro=tiny')
  id = (await json('run', (await json('image', 'show', 'tiny')).id, '--name', 'web', '--no-wait'))[0].id
  await service.instances.tasks.idle()
})
after(async () => {
  await service.instances.tasks.idle()
  await service.images.jobs.idle()
  await service.close()
})

test('a snapshot is an image that the instance is put back to', async () => {
  disk().write('root', 4096, written)
  assert.match(
    (await did('snapshot', 'web', '--name', 'before')).out,
    /^before \([0-9a-f-]{36}\) was made in \d+ s: 1\.0 GiB\.$/m,
  )
  disk().write('root', 4096, randomBytes(512))
  assert.match((await did('restore', 'web', 'before')).out, /^web \(.*\) was put back to before\.$/m)
  const shown = await json('show', 'web')
  assert.equal(shown.imageId, (await json('image', 'show', 'before')).id)
  assert.match((await did('snapshot', 'web', '--no-wait')).out, /^web-\d{8}-\d{6} \(.*\) is being made/)
  await service.instances.tasks.idle()
})

test('a system is run from its own image, not from a snapshot of it', async () => {
  const original = (await json('image', 'show', 'tiny')).id
  await json('image', 'set', original, '--name', 'renamed')
  const [made] = await json('run', 'tiny', '--name', 'other', '--no-wait')
  assert.equal(made.imageId, original)
  await service.instances.tasks.idle()
  await did('rm', 'other')
})

test('backups are kept by type, the newest of them', async () => {
  for (let n = 0; n < 3; n += 1) await did('backup', 'web', '--type', 'daily', '--keep', '2')
  const backups = await json('image', 'list', '--property', 'backup_type=daily')
  assert.equal(backups.length, 2)
  assert.match(
    (await did('backup', 'web', '--type', 'hourly', '--every', '1', '--keep', '3')).out,
    /every 1 h, from now on; 3 are kept/,
  )
  await service.instances.tasks.idle()
  assert.match((await did('backup', 'web', '--end')).out, /backed up no more/)
  assert.equal((await run(['backup', 'web', '--end', '--every', '2'], { environment: admin })).status, 2)
})

test('an instance is made anew in its place, and another like it', async () => {
  assert.match((await did('rebuild', 'web', 'renamed')).out, /^web \(.*\) was made anew from renamed\.$/m)
  assert.equal((await json('show', 'web')).id, id)
  assert.match((await did('clone', 'web', 'twin')).out, /^twin \(.*\) runs/)
  assert.match((await did('clone', 'web')).out, /^web-clone \(.*\) runs/)
  const told = (await json('events', 'web')).map(({ action }: { action: string }) => action)
  for (const action of ['createImage', 'rebuild']) assert.ok(told.includes(action), told.join(' '))
})

test('the machine of a snapshot is made again', async () => {
  await did('snapshot', 'web', '--name', 'whole', '--machine')
  const [made] = await json('run', 'whole', '--machine', '--name', 'same', '--no-wait')
  assert.equal(made.flavor.name, 'm1.tiny')
  const wrong = await run(['run', 'whole', '--machine', '--port', '80'], { environment: admin })
  assert.equal(wrong.status, 2)
})
