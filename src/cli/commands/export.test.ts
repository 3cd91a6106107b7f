import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { Environment } from '../output.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../real-service.suite.ts'
import { run, userOf } from '../run-cli.suite.ts'

let service: RealService
let admin: Environment
const bytes = randomBytes(100_000)
before(async () => {
  service = await startService()
  admin = userOf(service.url, 'admin', ADMIN_PASSWORD, 'admin')
  const path = join(mkdtempSync(join(tmpdir(), 'imprint-export-')), 'disk')
  writeFileSync(path, bytes)
  const added = await run(['image', 'add', path, '--name', 'debian'], { environment: admin })
  assert.equal(added.status, 0, added.err)
})
after(async () => {
  await service.images.jobs.idle()
  await service.close()
})

test('export prints the address, what to do with it, and how to end it; list and end know it by its id', async () => {
  const said = await run(['export', 'debian', '--seconds', '60'], { environment: admin })
  assert.equal(said.status, 0, said.err)
  const uri = said.out.trim()
  assert.match(uri, /^nbd\+unix:\/\/\/[\w-]{43}\?socket=\/run\/imprint\/nbd\.sock$/)
  for (const line of [`nbdinfo '${uri}'`, `nbdcopy '${uri}' disk.raw`, `qemu-img convert -f raw -O qcow2 '${uri}' disk.qcow2`])
    assert.ok(said.err.includes(line), said.err)
  const open = await service.disks.open(new URL(uri).pathname.slice(1))
  assert.ok(open && bytes.equals(await open.disk.read(0, bytes.length)))

  const { exports } = (await run(['export', 'list', '--json'], { environment: admin })).json
  assert.equal(exports.length, 1)
  const table = await run(['export', 'list'], { environment: admin })
  assert.match(table.out, new RegExp(`${exports[0].id}.*debian.*98 KiB.*Z`))
  const renewed = await run(['export', 'renew', exports[0].id, '--seconds', '7200', '--json'], { environment: admin })
  assert.ok(Date.parse(renewed.json.expiresAt) > Date.parse(exports[0].expiresAt))
  const ended = await run(['export', 'end', exports[0].id], { environment: admin })
  assert.equal(ended.status, 0, ended.err)
  assert.ok(open.revoked.aborted)
  await open.release()
  assert.equal((await run(['export', 'end', exports[0].id], { environment: admin })).status, 3)
})

test('export gives programs both addresses, and its faults have their exit statuses', async () => {
  const made = (await run(['export', 'debian', '--json'], { environment: admin })).json
  assert.match(made.uris.tcp, /^nbds:\/\/127\.0\.0\.1:10809\//)
  assert.equal((await run(['export', 'end', made.id, '--json'], { environment: admin })).status, 0)
  assert.equal((await run(['export', 'nothing'], { environment: admin })).status, 3)
  assert.equal((await run(['export'], { environment: admin })).status, 2)
  assert.equal((await run(['export', 'debian', '--size', '1M'], { environment: admin })).status, 2)
  assert.equal((await run(['export', '--size', 'x'], { environment: admin })).status, 2)
  assert.equal((await run(['export', '--size', '20T'], { environment: admin })).status, 1)
  assert.equal((await run(['export', '--size', '2G'], { environment: admin })).status, 6)
  assert.equal((await run(['export', 'debian', '--seconds', '0'], { environment: admin })).status, 2)
})

test('a writable export says how to write it; a blank one is made by its size', async () => {
  const over = await run(['export', 'debian', '--writable'], { environment: admin })
  assert.equal(over.status, 0, over.err)
  assert.ok(over.err.includes(`nbdcopy disk.raw '${over.out.trim()}'`), over.err)
  const blank = (await run(['export', '--size', '1M', '--json'], { environment: admin })).json
  assert.deepEqual([blank.image, blank.diskBytes, blank.writable], [null, 2 ** 20, true])
  const table = await run(['export', 'list'], { environment: admin })
  assert.match(table.out, new RegExp(`${blank.id}.*1.0 MiB.*yes`))
  const { exports } = (await run(['export', 'list', '--json'], { environment: admin })).json
  const ids = exports.map(({ id }: { id: string }) => id)
  assert.equal((await run(['export', 'end', ...ids], { environment: admin })).status, 0)
})
