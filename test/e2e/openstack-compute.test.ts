/** The commands of `openstack` on flavors, keypairs and servers, as an operator would type them; the servers are real guests. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { noTinyGuest, tinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { missingTool } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { askUntil, clientSession } from './client-session.ts'
import { startImprint } from './image-service.ts'

interface Server {
  readonly id: string
  readonly name: string
  readonly status: string
  readonly addresses: Readonly<Record<string, readonly string[]>>
  readonly properties: Readonly<Record<string, string>>
  readonly flavor: string
  readonly image: string
  readonly key_name: string
}
type Row = Readonly<Record<string, unknown>>

const skip = missingTool('openstack', 'ssh-keygen') || noTinyGuest()

test('openstack flavor, keypair, server', { skip }, async (t) => {
  const scratch = await scratchFolder('e2e')
  t.after(scratch.stop)
  const service = await startImprint({ settings: { IMPRINT_INSTANCE_ACCELERATOR: 'tcg' } })
  t.after(() => endMachines(service.dataFolder)) // before its folder goes with it
  t.after(service.stop)
  const operator = clientSession(service.identityUrl, service.cast.admin, scratch.path)
  const { ok, json, refused } = clientSession(service.identityUrl, service.cast.member, scratch.path)
  const step = (title: string, work: () => Promise<void>) => t.test(title, work)
  const show = (server: string) => json<Server>`openstack server show ${server}`
  const becomes = async (server: string, status: string): Promise<void> => {
    const shown = await askUntil(
      (answer) => answer.status === status,
      () => show(server),
    )
    assert.equal(shown.status, status, server)
  }
  const consoleSays = async (server: string, words: RegExp): Promise<string> => {
    const text = await askUntil(
      (said) => words.test(said),
      () => ok`openstack console log show ${server}`,
    )
    assert.match(text, words, `the console of ${server}`)
    return text
  }
  const disk = await tinyGuest()

  await step('flavor create, show, set, list, delete', async () => {
    await operator.ok`openstack flavor create --ram 128 --disk 1 --vcpus 1 --id tiny --property a:b=c e2e-tiny`
    const shown = await json<Row>`openstack flavor show e2e-tiny`
    assert.deepEqual([shown.id, shown.ram, shown.disk, shown.vcpus], ['tiny', 128, 1, 1])
    assert.deepEqual(shown.properties, { 'a:b': 'c' })
    await operator.ok`openstack flavor unset --property a:b e2e-tiny`
    await operator.ok`openstack flavor create --ram 64 --disk 1 --private --project ${service.cast.member.project} e2e-private`
    const names = (await json<Row[]>`openstack flavor list --all`).map(({ Name }) => Name)
    assert.deepEqual(names.sort(), ['e2e-private', 'e2e-tiny', 'm1.large', 'm1.medium', 'm1.small', 'm1.tiny', 'm1.xlarge'])
    await operator.ok`openstack flavor unset --project ${service.cast.member.project} e2e-private`
    await refused`openstack flavor show e2e-private`
    await operator.ok`openstack flavor delete e2e-private`
    await refused`openstack flavor create --ram 64 --disk 1 theirs`
  })
  await step('keypair create makes a key that ssh-keygen reads, or takes one; list, show, delete', async () => {
    const made = join(scratch.path, 'made')
    await ok`openstack keypair create --private-key ${made} made`
    await chmod(made, 0o600) // the client leaves it to the umask, and ssh-keygen insists
    const line = execFileSync('ssh-keygen', ['-y', '-f', made], { encoding: 'utf8' }).trim()
    assert.equal((await ok`openstack keypair show --public-key made`).trim(), line)
    await writeFile(join(scratch.path, 'imported.pub'), line)
    await ok`openstack keypair create --public-key ${join(scratch.path, 'imported.pub')} laptop`
    assert.deepEqual(
      (await json<Row[]>`openstack keypair list`).map(({ Name }) => Name),
      ['laptop', 'made'],
    )
    await ok`openstack keypair delete made`
    await refused`openstack keypair show made`
  })
  await step('server create --wait starts a guest from the image, which finds what it was sent', async () => {
    await ok`openstack image create --disk-format raw --container-format bare --file ${disk} tiny`
    const script = join(scratch.path, 'user-data')
    await writeFile(script, '#!/bin/sh\necho "user data ran"\n')
    const made = await json<Server>`openstack server create --flavor e2e-tiny --image tiny --key-name laptop --user-data ${script}
      --property imprint:forwards=tcp:0:80 --property role=web --wait web`
    assert.equal(made.status, 'ACTIVE')
    const text = await consoleSays('web', /^ready/m)
    assert.match(text, new RegExp(`guest boots=1 instance=${made.id} uuid=${made.id}`, 'i'))
    assert.match(text, /user data ran/)
    assert.match((await ok`openstack console log show --lines 1 web`).trim(), /^\S/)
  })
  await step('a forwarded port leads to the guest', async () => {
    const { addresses, properties } = await show('web')
    assert.deepEqual(addresses, { user: ['10.0.2.15', '127.0.0.1'] })
    const [, port] = properties['imprint:forwards']!.split(':')
    const answer = await fetch(`http://127.0.0.1:${port}/`)
    assert.equal((await answer.text()).trim(), 'hello from the guest')
  })
  await step('console url show --serial gives a console, which types a command and hears the answer', async () => {
    const { url } = await json<Row>`openstack console url show --serial web`
    assert.match(String(url), /^ws:\/\/127\.0\.0\.1:\d+\/compute\/serial\/\?token=/)
    const socket = new WebSocket(String(url), 'binary') // Node's own: it shares no code with ours
    socket.binaryType = 'arraybuffer'
    let heard = ''
    const answered = new Promise<void>((done) =>
      socket.addEventListener('message', ({ data }) => {
        heard += Buffer.from(data as ArrayBuffer).toString('latin1')
        if (heard.includes('answer-42')) done()
      }),
    )
    socket.addEventListener('open', () => socket.send(Buffer.from('echo answer-$((6 * 7))\n')))
    await answered
    socket.close()
    assert.match(await refused`openstack console url show --novnc web`, /Unavailable console type novnc|serial console only/)
  })
  await step('show and list name the image, the flavor, the key and the properties', async () => {
    const shown = await show('web')
    assert.match(shown.image, /^tiny \(/)
    assert.match(shown.flavor, /^e2e-tiny \(tiny\)/)
    assert.deepEqual([shown.key_name, shown.properties.role], ['laptop', 'web'])
    const [row] = await json<Row[]>`openstack server list`
    assert.deepEqual([row?.Name, row?.Status, row?.Image, row?.Flavor], ['web', 'ACTIVE', 'tiny', 'e2e-tiny'])
    assert.deepEqual(await json<Row[]>`openstack server list --status SHUTOFF`, [])
    assert.equal((await json<Row[]>`openstack server list --name ^w.b$`).length, 1)
    assert.equal((await operator.json<Row[]>`openstack server list --all-projects --long`).length, 1)
  })
  await step('set and unset change name, properties and description', async () => {
    await ok`openstack server set --name web2 --property tier=front web`
    await ok`openstack server unset --property role web2`
    const { properties } = await show('web2')
    assert.deepEqual([properties.tier, properties.role], ['front', undefined])
    await ok`openstack --os-compute-api-version 2.73 server set --description words --tag blue web2`
    const later = await json<Row>`openstack --os-compute-api-version 2.73 server show web2`
    assert.deepEqual([later.description, later.tags, later.locked], ['words', ['blue'], false])
  })
  await step('pause, unpause, lock, unlock, stop, start, reboot', async () => {
    await ok`openstack server pause web2`
    await becomes('web2', 'PAUSED')
    await ok`openstack server unpause web2`
    await becomes('web2', 'ACTIVE')
    await ok`openstack --os-compute-api-version 2.73 server lock --reason ${'in production'} web2`
    assert.match(await refused`openstack server stop web2`, /is locked/)
    await ok`openstack server unlock web2`
    await ok`openstack server stop web2`
    await becomes('web2', 'SHUTOFF')
    assert.match(await refused`openstack server pause web2`, /vm_state stopped/)
    await ok`openstack server start web2`
    await becomes('web2', 'ACTIVE')
    await consoleSays('web2', /boots=2 /)
    await ok`openstack server reboot --soft --wait web2`
    await consoleSays('web2', /boots=3 /)
    await ok`openstack server reboot --hard --wait web2`
    await consoleSays('web2', /boots=4 /)
  })
  await step('server event list and show tell what was done, the newest first', async () => {
    const told = await json<Row[]>`openstack server event list web2`
    assert.deepEqual(
      told.slice(0, 2).map(({ Action }) => Action),
      ['reboot', 'reboot'],
    )
    assert.equal(told.at(-1)?.Action, 'create')
    const shown =
      await json<Row>`openstack --os-compute-api-version 2.60 server event show web2 ${String(told[0]?.['Request ID'])}`
    assert.equal(shown.action, 'reboot')
    const [event] = shown.events as Row[]
    assert.equal(event?.result, 'Success')
  })
  await step('an instance starts again when its image is deleted', async () => {
    await ok`openstack image delete tiny`
    await ok`openstack server stop web2`
    await becomes('web2', 'SHUTOFF')
    await ok`openstack server start web2`
    await consoleSays('web2', /boots=5 /)
  })
  await step('create --min --max makes several; what does not fit is refused with what does', async () => {
    await ok`openstack image create --disk-format raw --container-format bare --file ${disk} --min-ram 100 again`
    await ok`openstack server create --flavor e2e-tiny --image again --min 2 --max 3 --wait many`
    const names = (await json<Row[]>`openstack server list --name many`).map(({ Name }) => Name)
    assert.deepEqual(names.sort(), ['many-1', 'many-2', 'many-3'])
    await operator.ok`openstack flavor create --ram 64 --disk 1 --vcpus 1 e2e-small`
    const unfit = await refused`openstack server create --flavor e2e-small --image again none`
    assert.match(unfit, /memory is too small for requested image.*the smallest flavor that fits is e2e-tiny/)
    assert.match(
      await refused`openstack server create --flavor e2e-tiny --image again --max 99 --min 20 none`,
      /Quota exceeded for/,
    )
  })
  await step('hypervisor list, limits show, availability zone list', async () => {
    const [host] = await operator.json<Row[]>`openstack hypervisor list`
    assert.deepEqual([host?.['Hypervisor Type'], host?.State], ['QEMU', 'up'])
    const limits = await json<Row[]>`openstack limits show --absolute`
    assert.equal(limits.find(({ Name }) => Name === 'totalInstancesUsed')?.Value, 4)
    assert.equal((await json<Row[]>`openstack availability zone list --compute`)[0]?.['Zone Name'], 'nova')
  })
  await step('delete --wait leaves nothing', async () => {
    await ok`openstack server delete --wait web2 many-1 many-2 many-3`
    assert.deepEqual(await json<Row[]>`openstack server list`, [])
    await refused`openstack server show web2`
  })
})
