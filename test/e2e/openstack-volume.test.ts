/** The commands of `openstack` on volumes, and on servers that have some, as an operator would type them; the servers are real guests. */
import assert from 'node:assert/strict'
import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { noTinyGuest, tinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { missingTool } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { clientSession } from './client-session.ts'
import { startImprint } from './image-service.ts'

type Row = Readonly<Record<string, unknown>>
interface Volume {
  readonly id: string
  readonly status: string
  readonly size: number
  readonly bootable: string
  readonly properties: Readonly<Record<string, string>>
  readonly attachments: readonly { readonly server_id: string; readonly device: string }[]
}

const skip = missingTool('openstack') || noTinyGuest()

/** Of each volume that comes, the guest says what it begins with, and writes its own name there. */
const userData = (word: string) => `#!/bin/sh
own=$(cut -c1-20 /sys/class/dmi/id/product_uuid)
(while :; do
  for disk in /sys/block/vd?; do
    name=\${disk##*/}
    serial=$(cat $disk/serial 2>/dev/null)
    case $name:$serial in
      *:$own) continue ;;
      *:????????-????-????-*) ;;
      *) continue ;;
    esac
    [ -e "/seen-$serial" ] && continue
    : > "/seen-$serial"
    echo "disk $serial holds <$(head -c 16 /dev/$name | tr -d '\\000')>"
    printf '%s' "by ${word}" | dd of=/dev/$name conv=notrunc 2>/dev/null
    sync
    echo "disk $serial written"
  done
  usleep 200000
done) &
`

test('openstack volume, and servers with volumes', { skip }, async (t) => {
  const scratch = await scratchFolder('e2e')
  t.after(scratch.stop)
  const settings = { IMPRINT_INSTANCE_ACCELERATOR: 'tcg', IMPRINT_INSTANCE_STOP_SECONDS: '20' }
  const service = await startImprint({ settings })
  t.after(() => endMachines(service.dataFolder)) // before its folder goes with it
  t.after(service.stop)
  const sessionOf = (role: 'admin' | 'member') => clientSession(service.identityUrl, service.cast[role], scratch.path)
  const { ok, json, refused } = sessionOf('member')
  const step = (title: string, work: () => Promise<void>) => t.test(title, work)
  const volume = (name: string) => json<Volume>`openstack volume show ${name}`
  const becomes = async (name: string, status: string): Promise<void> => {
    for (let tries = 0; tries < 60; tries += 1) if ((await volume(name)).status === status) return
    assert.fail(`volume ${name} did not become ${status}: it is ${(await volume(name)).status}`)
  }
  const consoleSays = async (server: string, words: RegExp): Promise<void> => {
    let text = ''
    for (let tries = 0; tries < 100; tries += 1) {
      text = await ok`openstack console log show ${server}`
      if (words.test(text)) return
    }
    assert.fail(`the console of ${server} never said ${words}:\n${text.slice(-2000)}`)
  }
  const holds = async (server: string, name: string, what: string) =>
    consoleSays(server, new RegExp(`disk ${(await volume(name)).id.slice(0, 20)} holds <${what}>`))
  const boot = async (name: string, ...how: string[]) => {
    const script = join(scratch.path, `data-of-${name}`)
    await writeFile(script, userData(name))
    const [from = '', what = ''] = how
    await ok`openstack server create --flavor e2e-tiny ${from} ${what} --user-data ${script} --wait ${name}`
    await consoleSays(name, /^ready/m)
  }

  await step('volume create, list, show, set, unset, type list, limits', async () => {
    await sessionOf('admin').ok`openstack flavor create --ram 128 --disk 1 --vcpus 1 e2e-tiny`
    await ok`openstack image create --disk-format raw --container-format bare --file ${await tinyGuest()} tiny`
    await ok`openstack volume create --size 1 --description words --property a=b --property c=d data`
    await becomes('data', 'available')
    await ok`openstack volume set --size 2 --property e=f data`
    await ok`openstack volume unset --property a data`
    await becomes('data', 'available')
    const { size, properties, bootable } = await volume('data')
    assert.deepEqual([size, properties, bootable], [2, { c: 'd', e: 'f' }, 'false'])
    assert.deepEqual(
      (await json<Row[]>`openstack volume list --name data`).map(({ Name, Size }) => [Name, Size]),
      [['data', 2]],
    )
    assert.deepEqual(
      (await json<Row[]>`openstack volume type list`).map(({ Name }) => Name),
      ['imprint'],
    )
    const limits = await json<Row[]>`openstack limits show --absolute`
    assert.equal(limits.find(({ Name }) => Name === 'totalGigabytesUsed')?.Value, 2)
    assert.equal((await json<Row[]>`openstack availability zone list --volume`)[0]?.['Zone Name'], 'nova')
    await refused`openstack volume create --size 0 none`
    assert.match(await refused`openstack volume create --size 5000 none`, /at most 1024 GiB/)
  })
  await step('server add volume: the guest sees it and writes to it', async () => {
    await boot('one', '--image', 'tiny')
    await ok`openstack server add volume one data`
    await becomes('data', 'in-use')
    const [attachment] = (await volume('data')).attachments
    assert.equal(attachment?.device, '/dev/vdb')
    await holds('one', 'data', '')
    await consoleSays('one', /disk .* written/)
    assert.equal((await json<Row[]>`openstack server volume list one`).length, 1)
    assert.equal((await json<Row[]>`openstack --os-volume-api-version 3.27 volume attachment list`).length, 1)
    assert.match(await refused`openstack volume delete data`, /in-use|attached/)
    assert.match(await refused`openstack server add volume one data`, /status must be available/)
  })
  await step('a snapshot of the volume in use has what was written; so has an image of it', async () => {
    await refused`openstack volume snapshot create --volume data none`
    await ok`openstack volume snapshot create --force --volume data before`
    for (let tries = 0; tries < 60; tries += 1) {
      if ((await json<Row>`openstack volume snapshot show before`).status === 'available') break
    }
    await ok`openstack image create --volume data --force --disk-format raw uploaded`
    for (let tries = 0; tries < 60; tries += 1) if ((await json<Row>`openstack image show uploaded`).status === 'active') break
    await becomes('data', 'in-use')
    const file = join(scratch.path, 'uploaded')
    await ok`openstack image save --file ${file} uploaded`
    const saved = await open(file)
    const { buffer } = await saved.read(Buffer.alloc(6), 0, 6, 0).finally(() => saved.close())
    assert.equal(buffer.toString(), 'by one')
  })
})
