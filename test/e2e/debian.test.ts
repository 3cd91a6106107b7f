/**
 * A Debian with cloud-init, as people run it: started by the service, told who it is, logged in to by its key, and made an image of while it
 * runs. It takes minutes in emulation, so there is one of it.
 */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { openAsBlob } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { ImageRequests } from '../durability/image-requests.ts'
import { debianGuest, noDebianGuest } from '../fixtures/guest/debian-guest.ts'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { command, missingTool } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { startImprint } from './image-service.ts'

const skip = noDebianGuest() || missingTool('ssh')
const LOOK_AGAIN_MS = 1000
const MAX_LOOKS = 900

/** Whose database is told before a snapshot. */
const USER_DATA = `#cloud-config
write_files:
- {path: /etc/told, content: "by user data"}
- {path: /etc/qemu/qemu-ga.conf, content: "[general]\\nfsfreeze-hook=/etc/qemu/fsfreeze-hook\\n"}
- {path: /etc/qemu/fsfreeze-hook.d/ledger, permissions: "0755", content: "#!/bin/sh\\necho $1 >> /var/log/ledger\\n"}
runcmd: [[systemctl, restart, qemu-guest-agent]]
`

interface Server {
  readonly id: string
  readonly status: string
  readonly metadata: Readonly<Record<string, string>>
}

test('a Debian with cloud-init is told who it is, takes the key, grows its disk, and is frozen for a snapshot of which its programs are told', {
  skip,
}, async (t) => {
  const scratch = await scratchFolder('debian')
  t.after(scratch.stop)
  const service = await startImprint({ settings: { IMPRINT_INSTANCE_ACCELERATOR: 'tcg' } })
  t.after(() => endMachines(service.dataFolder))
  t.after(service.stop)
  const origin = new URL(service.identityUrl).origin
  const admin = new ImageRequests(origin, service.cast.admin.token)
  const member = new ImageRequests(origin, service.cast.member.token)
  const compute = <T>(method: string, path: string, body?: unknown) => member.json<T>(method, `/compute/v2.1${path}`, body)
  const until = async (what: string, holds: () => Promise<boolean>): Promise<void> => {
    for (let looks = 0; looks < MAX_LOOKS; looks += 1) {
      if (await holds()) return
      await pause(LOOK_AGAIN_MS)
    }
    assert.fail(`it never came to pass: ${what}`)
  }

  const imageId = randomUUID()
  await member.create(imageId, 'debian')
  await member.send(imageId, await openAsBlob(await debianGuest()))
  await member.ask(
    'PATCH',
    `/image/v2/images/${imageId}`,
    JSON.stringify([{ op: 'add', path: '/hw_qemu_guest_agent', value: 'yes' }]),
    { 'content-type': 'application/openstack-images-v2.1-json-patch' },
  )
  await admin.json('POST', '/compute/v2.1/flavors', { flavor: { id: 'debian', name: 'debian', ram: 512, vcpus: 1, disk: 3 } })
  const { keypair } = await compute<{ keypair: { private_key: string } }>('POST', '/os-keypairs', { keypair: { name: 'k' } })
  const keyFile = join(scratch.path, 'key')
  await writeFile(keyFile, keypair.private_key, { mode: 0o600 })
  const { server } = await compute<{ server: Server }>('POST', '/servers', {
    server: {
      name: 'Deb One',
      imageRef: imageId,
      flavorRef: 'debian',
      key_name: 'k',
      adminPass: 'correct horse',
      user_data: Buffer.from(USER_DATA).toString('base64'),
      metadata: { 'imprint:forwards': 'tcp:0:22' },
    },
  })
  const show = async () => (await compute<{ server: Server }>('GET', `/servers/${server.id}`)).server
  const log = async () =>
    (await compute<{ output: string }>('POST', `/servers/${server.id}/action`, { 'os-getConsoleOutput': {} })).output
  const begun = performance.now()
  await until('it is running', async () => (await show()).status === 'ACTIVE')
  const [, port] = (await show()).metadata['imprint:forwards']!.split(':')

  await until('cloud-init is done', async () => /Cloud-init v\. .* finished at/.test(await log()))
  t.diagnostic(`cloud-init was done after ${((performance.now() - begun) / 1000).toFixed(0)} s`)
  assert.match(await log(), /deb-one login:/)
  const ssh = async (script: string): Promise<string> => {
    const options = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'LogLevel=ERROR', 'BatchMode=yes']
    const to = ['-i', keyFile, '-p', port!, ...options.flatMap((option) => ['-o', option]), 'debian@127.0.0.1']
    const { code, stdout, stderr } = await command(['ssh', ...to, script])
    assert.equal(code, 0, stderr)
    return stdout.trim()
  }
  assert.equal(await ssh('hostname; cat /etc/told'), 'deb-one\nby user data')
  const [diskBytes] = (await ssh('df --output=size -B1 / | tail -1')).split('\n').map(Number)
  assert.ok(diskBytes! > 2.5e9, `its root file system has ${diskBytes} bytes of a disk of 3 GiB`)
  const shadow = await ssh('sudo getent shadow debian | cut -d: -f2')
  assert.match(shadow, /^\$6\$/)
  const [, , salt] = shadow.split('$')
  const { stdout } = await command(['openssl', 'passwd', '-6', '-salt', salt!, '-stdin'], { input: 'correct horse\n' })
  assert.equal(shadow, stdout.trim(), 'cloud-init took the hash as it is')

  await until('the guest agent runs', async () => (await ssh('systemctl is-active qemu-guest-agent || true')) === 'active')
  await ssh('echo precious > note; sync')
  await compute('POST', `/servers/${server.id}/action`, { createImage: { name: 'of debian' } })
  const made = async () =>
    (await member.json<{ images: readonly Record<string, string>[] }>('GET', '/image/v2/images?name=of%20debian')).images[0]
  await until('its image is there', async () => (await made())?.status === 'active')
  const { imprint_consistency: consistency, imprint_consistency_evidence: evidence } = (await made())!
  assert.match(`${consistency}: ${evidence}`, /^application: the guest's agent froze \d file systems, after it had told ledger$/)
  assert.equal(await ssh('cat /var/log/ledger'), 'freeze\nthaw')
  assert.equal(await ssh('cat note; echo more > note && cat note'), 'precious\nmore', 'it is thawed, and writes')
})
