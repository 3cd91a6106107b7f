import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { lacking, scratch } from '../../../test/fixtures/disk/tools.ts'
import { MiB } from '../../base/units.ts'
import { runOrder } from '../netboot/run-order.ts'
import type { Environment } from '../output.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../real-service.suite.ts'
import { run, userOf } from '../run-cli.suite.ts'

const MAC = '52:54:00:12:34:56'
const BUILD = '0123456789abcdef'
const disk = randomBytes(3 * MiB)
let service: RealService
let admin: Environment
before(async () => {
  service = await startService()
  admin = userOf(service.url, 'admin', ADMIN_PASSWORD, 'admin')
  await mkdir(service.netbootFolder)
})
after(async () => {
  await service.images.jobs.idle()
  await service.close()
})
async function said(...words: string[]) {
  const answer = await run(words, { environment: admin })
  assert.equal(answer.status, 0, answer.err)
  return answer
}
const get = (path: string) => fetch(`${service.url}/netboot/${path}`)

test('before a system was made for it, the script says what to do; parts have names that lead nowhere else', async () => {
  const script = await get('boot.ipxe')
  assert.equal(await script.text(), `#!ipxe\nchain --autofree boot.ipxe?mac=\${netX/mac:hexhyp}\n`)
  const none = await get(`boot.ipxe?mac=${MAC}`)
  assert.deepEqual([none.status, (await none.text()).includes('imprint netboot build')], [503, true])
  await writeFile(join(service.netbootFolder, 'current'), `${BUILD}\n`)
  await writeFile(join(service.netbootFolder, `kernel-${BUILD}`), 'a kernel')
  const kernel = await get(`kernel-${BUILD}`)
  assert.deepEqual([await kernel.text(), kernel.headers.get('content-length')], ['a kernel', '8'])
  for (const name of [
    'current',
    `initramfs-${BUILD}`,
    'kernel-..%2fcurrent',
    '..%2fcatalog.db',
    `kernel-${BUILD}-x%00`,
    'kernel-',
  ]) {
    assert.equal((await get(name)).status, 404, name)
  }
  for (const mac of ['x', '', '52:54:00:12:34', `${MAC}%0aboot`, `${MAC}&mac=${MAC}`]) {
    assert.equal((await get(`boot.ipxe?mac=${mac}`)).status, 400, mac)
  }
})

const root = process.getuid?.() === 0 ? lacking('losetup') : 'needs root'
test('a machine that is allowed does what it was ordered, and reports', { skip: root }, async (t) => {
  const path = await scratch(t)
  await writeFile(path('image'), disk)
  await said('image', 'add', path('image'), '--name', 'system')
  await writeFile(path('medium'), Buffer.alloc(8 * MiB))
  const device = execFileSync('losetup', ['--find', '--show', path('medium')], { encoding: 'utf8' }).trim()
  t.after(() => execFileSync('losetup', ['--detach', device]))
  const { id, script: address } = (
    await said('netboot', 'allow', '52-54-00-12-34-56', '--image', 'system', '--to', device, '--json')
  ).json
  assert.equal(address, `${service.url}/netboot/boot.ipxe`)
  assert.match(
    await (await get('boot.ipxe?mac=52-54-00-99-99-99')).text(),
    /no image for this machine, 52:54:00:99:99:99\nexit\n$/,
  )
  const script = await (await get(`boot.ipxe?mac=${MAC}`)).text()
  assert.match(script, new RegExp(`^#!ipxe\nkernel kernel-${BUILD} .*\ninitrd initramfs-${BUILD}\nboot\n$`))
  const [, url = '', token = ''] = /imprint\.order=(\S+) imprint\.token=([\w-]{43})\n/.exec(script) ?? []
  assert.equal(url, `${service.url}/v1/deployments/${id}`)
  const begun: unknown[] = []
  const { signal } = new AbortController()
  const quiet = { sys: path(''), signal, onProgress: () => {} }
  await assert.rejects(runOrder({ ...quiet, url, token: 'guessed', onBegin: () => {} }), { code: 'unauthenticated' })
  await runOrder({ ...quiet, url, token, onBegin: ({ name }, target) => begun.push(name, target) })
  assert.deepEqual(begun, ['system', device])
  assert.ok((await readFile(path('medium'))).subarray(0, disk.length).equals(disk))
  const { deployments } = (await said('netboot', 'list', '--json')).json
  assert.deepEqual([deployments[0].state, deployments[0].machine], ['done', MAC])
  assert.match((await said('netboot', 'list')).out, new RegExp(`${MAC}.*system.*${device}.*done`))
  await assert.rejects(runOrder({ ...quiet, url, token, onBegin: () => {} }), { code: 'unauthenticated' })
})

test('who asks from elsewhere is refused, also by a proxy on this machine; a machine that is being written is told to wait', async (t) => {
  const refused = await fetch(`${service.url}/netboot/boot.ipxe`, { headers: { 'x-forwarded-for': '127.0.0.1, 203.0.113.7' } })
  assert.deepEqual([refused.status, (await refused.text()).includes('netbootNetworks')], [403, true])
  assert.equal((await fetch(`${service.url}/netboot/boot.ipxe`, { headers: { 'x-forwarded-for': '127.0.0.2' } })).status, 200)
  const path = await scratch(t)
  await writeFile(path('image'), disk)
  await said('image', 'add', path('image'), '--name', 'slow')
  const words = ['netboot', 'allow', '52:54:00:00:00:08', '--image', 'slow', '--disk', 'serial=NONE-SUCH', '--json']
  const { id, target } = (await said(...words)).json
  assert.equal(target, 'serial=NONE-SUCH')
  const ask = async () => (await get('boot.ipxe?mac=52-54-00-00-00-08')).text()
  const [, token = ''] = /imprint\.token=(\S+)/.exec(await ask()) ?? []
  const tell = (body: object) =>
    fetch(`${service.url}/v1/deployments/${id}/report`, {
      method: 'POST',
      headers: { 'x-auth-token': token, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
  assert.equal((await tell({ state: 'writing', doneBytes: 1, totalBytes: 2 })).status, 204)
  assert.match(
    await ask(),
    /^#!ipxe\necho Imprint: .*heard of just now.*\nsleep 10\nchain .*boot\.ipxe\?mac=52-54-00-00-00-08\n$/,
  )
  const url = `${service.url}/v1/deployments/${id}`
  const order = { url, token, sys: '/sys', signal: new AbortController().signal, onBegin: () => {}, onProgress: () => {} }
  await assert.rejects(runOrder(order), { code: 'not-found', message: /no disk with serial=NONE-SUCH: it has/ })
  const { deployments } = (await said('netboot', 'list', '--json')).json
  assert.match(deployments[0].message, /no disk with serial=NONE-SUCH/)
})

test('what fails on the machine is told, and what was ordered can be forgotten', async (t) => {
  const path = await scratch(t)
  await writeFile(path('image'), disk)
  await said('image', 'add', path('image'), '--name', 'failing')
  await said('netboot', 'allow', 'any', '--image', 'failing', '--to', '/dev/no-such-disk', '--hours', '1')
  const script = await (await get('boot.ipxe?mac=52-54-00-00-00-07')).text()
  const [, url = '', token = ''] = /imprint\.order=(\S+) imprint\.token=(\S+)/.exec(script) ?? []
  const { signal } = new AbortController()
  const ordered = runOrder({ url, token, sys: '/sys', signal, onBegin: () => {}, onProgress: () => {} })
  await assert.rejects(ordered, { code: 'not-found' })
  const [failed] = (await said('netboot', 'list', '--json')).json.deployments
  assert.deepEqual([failed.state, failed.machine], ['failed', '52:54:00:00:00:07'])
  assert.match(failed.message, /no device \/dev\/no-such-disk/)
  assert.match((await said('netboot', 'forget', failed.id)).out, /Forgot/)
  assert.equal((await run(['netboot', 'forget', failed.id], { environment: admin })).status, 3)
  for (const words of [
    ['x'],
    ['any', '--image', 'failing'],
    ['any', '--image', 'failing', '--to', 'disk.raw'],
    ['any', '--image', 'failing', '--to', '/dev/sda', '--disk', 'largest'],
  ]) {
    assert.equal((await run(['netboot', 'allow', ...words], { environment: admin })).status, 2)
  }
  const hostile = { image: 'failing', to: '/dev/sda; reboot' }
  assert.equal(
    (await run(['netboot', 'allow', 'any', '--image', hostile.image, '--to', hostile.to], { environment: admin })).status,
    1,
  )
})
