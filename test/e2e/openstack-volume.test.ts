/** The commands of `openstack` on volumes, and on servers that have some, as an operator would type them; the servers are real guests. */
import assert from 'node:assert/strict'
import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { noTinyGuest, tinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { missingTool } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { askUntil, clientSession } from './client-session.ts'
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

interface Named {
  readonly id: string
  readonly status: string
}
interface Answer {
  readonly volumes?: readonly Named[]
  readonly snapshots?: readonly Named[]
  readonly servers?: readonly Named[]
  readonly output?: string
}

const skip = missingTool('openstack') || noTinyGuest()

/** Where the guest writes: beyond what the tiny image takes. */
const MARK = 512 * 2 ** 20
/** Of each volume that comes, the guest says how large it is and what it holds there, and writes its own name. */
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
    echo "disk $serial has $(cat $disk/size) sectors"
    echo "disk $serial holds <$(dd if=/dev/$name bs=512 skip=${MARK / 512} count=1 2>/dev/null | head -c 16 | tr -d '\\000')>"
    printf '%s' "by ${word}" | dd of=/dev/$name bs=512 seek=${MARK / 512} conv=notrunc 2>/dev/null
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
  /** What is asked over and over is asked without the client, which takes its time to start. */
  const ask = async (method: 'GET' | 'POST', path: string, body?: object): Promise<Answer> => {
    const headers = { 'x-auth-token': service.cast.member.token, 'content-type': 'application/json' }
    const answer = await fetch(new URL(service.identityUrl).origin + path, {
      ...{ method, headers },
      ...(body ? { body: JSON.stringify(body) } : {}),
    })
    assert.ok(answer.ok, `${method} ${path}: ${answer.status}`)
    return (await answer.json()) as Answer
  }
  const until = async (what: () => string, holds: () => Promise<boolean>): Promise<void> => {
    for (let tries = 0; tries < 600; tries += 1) {
      if (await holds()) return
      await pause(200)
    }
    assert.fail(what())
  }
  const becomes = async (name: string, status: string, kind: 'volumes' | 'snapshots' = 'volumes'): Promise<void> => {
    let is: string | undefined
    await until(
      () => `${name} did not become ${status}: it is ${is}`,
      async () => {
        is = (await ask('GET', `/volume/v3/${kind}/detail?name=${name}`))[kind]?.[0]?.status
        return is === status
      },
    )
  }
  const consoleSays = async (name: string, words: RegExp): Promise<void> => {
    const { servers } = await ask('GET', `/compute/v2.1/servers?name=^${name}$`)
    let text = ''
    await until(
      () => `the console of ${name} never said ${words}:\n${text.slice(-2000)}`,
      async () => {
        const asked = { 'os-getConsoleOutput': {} }
        text = (await ask('POST', `/compute/v2.1/servers/${servers?.[0]?.id}/action`, asked)).output ?? ''
        return words.test(text)
      },
    )
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
    await becomes('before', 'available', 'snapshots')
    await ok`openstack image create --volume data --force --disk-format raw uploaded`
    await askUntil(
      ({ status }) => status === 'active',
      () => json<Row>`openstack image show uploaded`,
    )
    await becomes('data', 'in-use')
    const file = join(scratch.path, 'uploaded')
    await ok`openstack image save --file ${file} uploaded`
    const saved = await open(file)
    const { buffer } = await saved.read(Buffer.alloc(6), 0, 6, MARK).finally(() => saved.close())
    assert.equal(buffer.toString(), 'by one')
  })
  await step('server remove volume, and set --size: the guest sees that it has grown, and what it wrote', async () => {
    await ok`openstack server remove volume one data`
    await becomes('data', 'available')
    await ok`openstack volume set --size 3 data`
    await becomes('data', 'available')
    assert.equal((await volume('data')).size, 3)
    await ok`openstack server delete --wait one`
    await boot('two', '--image', 'tiny')
    await ok`openstack server add volume two data`
    await holds('two', 'data', 'by one')
    await consoleSays('two', new RegExp(`disk ${(await volume('data')).id.slice(0, 20)} has ${(3 * 2 ** 30) / 512} sectors`))
    await ok`openstack server delete --wait two`
    await becomes('data', 'available')
  })
  await step('server create --volume: it starts from a volume that was made from an image, and writes to it', async () => {
    await ok`openstack volume create --image tiny --size 1 system`
    await becomes('system', 'available')
    assert.equal((await volume('system')).bootable, 'true')
    await boot('three', '--volume', 'system')
    await holds('three', 'system', '')
    await consoleSays('three', /disk .* written/)
    assert.equal((await json<Row>`openstack server show three`).image, 'N/A (booted from volume)')
  })
  await step('a server starts from a volume of a snapshot that was taken while the first one ran', async () => {
    await ok`openstack volume snapshot create --force --volume system running`
    await becomes('running', 'available', 'snapshots')
    await ok`openstack volume create --snapshot running --size 1 again`
    await becomes('again', 'available')
    await boot('four', '--volume', 'again')
    await holds('four', 'again', 'by three')
    await ok`openstack server delete --wait four`
  })
  await step(
    'server image create of a server on a volume: a server of it has a volume of its own with what was written',
    async () => {
      await ok`openstack server image create --name machine --wait three`
      const { properties } = await json<{ readonly properties: Readonly<Record<string, unknown>> }>`openstack image show machine`
      assert.match(JSON.stringify(properties.block_device_mapping), /"?source_type/)
      await boot('five', '--image', 'machine')
      const [own] = await json<Row[]>`openstack server volume list five`
      await consoleSays('five', new RegExp(`disk ${String(own?.['Volume ID']).slice(0, 20)} holds <by three>`))
      assert.notEqual(own?.['Volume ID'], (await volume('system')).id)
      const snapshots = await json<Row[]>`openstack volume snapshot list`
      assert.ok(snapshots.some(({ Name }) => Name === 'snapshot for machine'))
      for (const server of ['three', 'five']) await ok`openstack server delete --wait ${server}`
      await becomes('system', 'available')
    },
  )
})
