/** The whole service with a user and a control group for QEMU: a guest reads its disk, answers, and is bounded. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile, rmdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { ImageRequests } from '../durability/image-requests.ts'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { noTinyGuest, tinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { command } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { startImprint } from './image-service.ts'

const unified = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find((path) => existsSync(join(path, 'cgroup.procs')))
const skip =
  noTinyGuest() ||
  (process.getuid?.() !== 0 && 'only root can become another user') ||
  (!unified && 'there are no control groups of version 2')
const NOBODY = 65_534
interface Server {
  readonly status: string
  readonly metadata: Readonly<Record<string, string>>
}

test('QEMU runs as the user that is named, in a group of its own, and reaches its disks', { skip }, async (t) => {
  const cgroup = join(unified!, `imprint-test-${randomUUID()}`)
  t.after(() => rmdir(cgroup))
  const settings = { IMPRINT_INSTANCE_USER: 'nobody', IMPRINT_INSTANCE_CGROUP: cgroup, IMPRINT_INSTANCE_STOP_SECONDS: '1' }
  const scratch = await scratchFolder('confined')
  t.after(scratch.stop)
  await command(['chmod', '0711', scratch.path])
  const dataFolder = join(scratch.path, 'data')
  const service = await startImprint({ settings, dataFolder })
  t.after(() => endMachines(dataFolder))
  t.after(service.stop)
  const requests = new ImageRequests(service.address, service.cast.admin.token)
  const compute = <T>(method: string, path: string, body?: unknown) => requests.json<T>(method, `/compute/v2.1${path}`, body)
  const show = async () => (await compute<{ readonly servers: readonly [Server?] }>('GET', '/servers/detail')).servers[0]
  const until = async (what: string, holds: () => Promise<boolean>) => {
    for (let tries = 0; tries < 600; tries += 1) {
      if (await holds()) return
      await pause(100)
    }
    assert.fail(`it never came to pass: ${what}`)
  }

  const imageRef = randomUUID()
  await requests.create(imageRef, 'tiny', 'raw')
  await requests.send(imageRef, await readFile(await tinyGuest()))
  const wanted = { name: 'confined', imageRef, flavorRef: '1', metadata: { 'imprint:forwards': 'tcp:0:80' } }
  const made = await compute<{ readonly server: { readonly id: string } }>('POST', '/servers', { server: wanted })
  const { id } = made.server
  await until('it is active', async () => (await show())?.status === 'ACTIVE')
  const port = (await show())!.metadata['imprint:forwards']!.split(':')[1]
  await until('the guest, whose system is read from the image, answers', async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/`).catch(() => null) // it is starting
    return (await answer?.text()) === 'hello from the guest\n'
  })

  const [, line = ''] = (await readFile(join(dataFolder, 'machines', id, 'process'), 'latin1')).split('\n')
  const status = await readFile(`/proc/${Number.parseInt(line, 10)}/status`, 'utf8')
  assert.match(status, new RegExp(`^Uid:\t${NOBODY}\t${NOBODY}\t${NOBODY}\t${NOBODY}$`, 'm'))
  assert.match(status, /^CapPrm:\t0+$/m)
  assert.equal((await readFile(join(cgroup, id, 'cgroup.procs'), 'utf8')).trim(), String(Number.parseInt(line, 10)))
  for (const name of ['catalog.db', 'store']) {
    assert.equal((await stat(join(dataFolder, name))).mode & 0o077, 0, `${name} is closed to others`)
  }

  await compute('DELETE', `/servers/${id}`)
  await until('it is gone', async () => (await show()) === undefined)
  assert.ok(!existsSync(join(cgroup, id)))
})

const refused: readonly [string, Readonly<Record<string, string>>, RegExp][] = [
  ['a user that is not there', { IMPRINT_INSTANCE_USER: 'nobody-of-that-name' }, /instanceUser: this machine has no user/],
  ['a control group that is none', { IMPRINT_INSTANCE_CGROUP: '/proc/self' }, /instanceCgroup: \/proc\/self is no control group/],
]
for (const [what, settings, says] of refused) {
  test(`the service does not start with ${what}, and says why`, { skip }, async () => {
    await assert.rejects(startImprint({ settings }), says)
  })
}
