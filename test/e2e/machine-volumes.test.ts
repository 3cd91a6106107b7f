/** Machines with volumes as images, with their memory: put back, made again, and put back while they start from a volume; real guests. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { HANDS } from '../fixtures/guest/hands.ts'
import { noTinyGuest, tinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { startImprint } from './image-service.ts'

const FAR = 500 // MiB: beyond what the image takes
/** The device of the disk with that serial number. */
const OF = `of() { for d in /sys/block/vd*; do [ "$(cat $d/serial 2>/dev/null)" = "$1" ] && echo /dev/\${d##*/}; done; }`
/** What the guest says of its memory and of its disks, of which it forgets first what it has read. */
const look = (disks: readonly string[]) =>
  `${OF}; echo 3 > /proc/sys/vm/drop_caches; cat /word; ${disks.map((disk) => `dd if=$(of ${disk}) bs=1M skip=${FAR} count=1 2>/dev/null | head -c 5; echo`).join('; ')}`
const write = (word: string, disks: readonly string[]) =>
  `${OF}; echo ${word} > /word; ${disks.map((disk) => `printf ${word} | dd of=$(of ${disk}) bs=1M seek=${FAR} conv=notrunc 2>/dev/null`).join('; ')}; sync`

test('memory and volumes of one moment', { skip: noTinyGuest() }, async (t) => {
  const service = await startImprint({ settings: { IMPRINT_INSTANCE_ACCELERATOR: 'tcg' } })
  t.after(() => endMachines(service.dataFolder))
  t.after(service.stop)
  const origin = new URL(service.identityUrl).origin
  const send = async (role: 'admin' | 'member', method: string, path: string, type: string, body?: string | Buffer) => {
    const headers = {
      'x-auth-token': service.cast[role].token,
      'content-type': type,
      'openstack-api-version': 'compute 2.79, volume 3.67',
    }
    const answer = await fetch(origin + path, {
      method,
      headers,
      ...(body === undefined ? {} : { body: new Uint8Array(Buffer.from(body)) }),
    })
    const text = await answer.text()
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`)
    return text
  }
  const ask = async <T>(method: string, path: string, body?: unknown, role: 'admin' | 'member' = 'member'): Promise<T> => {
    const text = await send(role, method, path, 'application/json', body === undefined ? undefined : JSON.stringify(body))
    return (text === '' ? undefined : JSON.parse(text)) as T
  }
  const until = async (what: string, holds: () => Promise<boolean>): Promise<void> => {
    for (let tries = 0; tries < 600; tries += 1) {
      if (await holds()) return
      await pause(100)
    }
    assert.fail(`it never came to pass: ${what}`)
  }
  interface Server {
    readonly id: string
    readonly status: string
    readonly 'OS-EXT-STS:task_state': string | null
    readonly metadata: Readonly<Record<string, string>>
    readonly image: unknown
    readonly fault?: { readonly message: string }
  }
  const show = async (id: string) => (await ask<{ readonly server: Server }>('GET', `/compute/v2.1/servers/${id}`)).server
  const runs = (id: string) =>
    until(`${id} runs`, async () => {
      const { status, fault, 'OS-EXT-STS:task_state': task } = await show(id)
      assert.notEqual(status, 'ERROR', fault?.message)
      return status === 'ACTIVE' && task === null
    })
  const inGuest = async (id: string, script: string): Promise<string> => {
    const [, port] = (await show(id)).metadata['imprint:forwards']!.split(':')
    let said = ''
    await until(`${id} answers`, async () => {
      try {
        const answer = await fetch(`http://127.0.0.1:${port}/cgi-bin/run`, { method: 'POST', body: script })
        said = await answer.text()
        return answer.status === 200
      } catch {
        return false // it is starting
      }
    })
    return said.trim()
  }
  const volumesOf = async (id: string) =>
    (
      await ask<{ readonly volumeAttachments: readonly { readonly volumeId: string }[] }>(
        'GET',
        `/compute/v2.1/servers/${id}/os-volume_attachments`,
      )
    ).volumeAttachments.map(({ volumeId }) => volumeId)
  /** Serial numbers of its disks. */
  const disksOf = async (id: string) => {
    const { image } = await show(id)
    return [...(image === '' ? [] : [id]), ...(await volumesOf(id))].map((name) => name.slice(0, 20))
  }
  const say = async (id: string, word: string) => void (await inGuest(id, write(word, await disksOf(id))))
  const says = async (id: string, word: string) => {
    const disks = await disksOf(id)
    assert.equal(disks.length, 2)
    assert.equal(await inGuest(id, look(disks)), [word, word, word].join('\n'))
  }
  const keep = async (id: string, what: object): Promise<string> => {
    const { image } = await ask<{ readonly image: string }>('POST', `/v1/instances/${id}/snapshots`, { name: 'kept', ...what })
    await until('its image is there', async () => {
      assert.equal((await show(id)).fault, undefined)
      return (await ask<{ readonly status: string }>('GET', `/image/v2/images/${image}`)).status === 'active'
    })
    await runs(id)
    return image
  }

  const imageBody = { name: 'tiny', disk_format: 'raw', container_format: 'bare' }
  const { id: tiny } = await ask<{ readonly id: string }>('POST', '/image/v2/images', imageBody)
  await send('member', 'PUT', `/image/v2/images/${tiny}/file`, 'application/octet-stream', await readFile(await tinyGuest()))
  const flavor = { id: 'tiny', name: 'tiny', ram: 128, disk: 1, vcpus: 1 }
  await ask('POST', '/compute/v2.1/flavors', { flavor }, 'admin')
  const made = (index: number | null, from: object) => ({
    ...from,
    destination_type: 'volume',
    volume_size: 1,
    boot_index: index,
    delete_on_termination: true,
  })
  const boot = async (name: string, more: object): Promise<string> => {
    const user_data = Buffer.from(HANDS).toString('base64')
    const server = { name, flavorRef: 'tiny', user_data, networks: 'auto', metadata: { 'imprint:forwards': 'tcp:0:80' }, ...more }
    const { id } = (await ask<{ readonly server: Server }>('POST', '/compute/v2.1/servers', { server })).server
    await runs(id)
    return id
  }
  const data = made(null, { source_type: 'blank' })

  for (const [what, more] of [
    ['a disk of its own', { imageRef: tiny, block_device_mapping_v2: [data] }],
    ['a volume', { block_device_mapping_v2: [made(0, { source_type: 'image', uuid: tiny }), data] }],
  ] as const) {
    await t.test(`a server that starts from ${what} goes on where it was, with what was in its volumes`, async () => {
      const id = await boot('one', more)
      await say(id, 'first')
      const image = await keep(id, { memory: true })
      await say(id, 'later')
      await says(id, 'later')

      const { id: twin } = await ask<{ readonly id: string }>('POST', '/v1/instances', { image, name: 'twin', memory: true })
      await runs(twin)
      await says(twin, 'first')
      const [mine, its] = [await volumesOf(id), await volumesOf(twin)]
      assert.equal(new Set([...mine, ...its]).size, mine.length * 2)
      await ask('DELETE', `/compute/v2.1/servers/${twin}`)

      await ask('POST', `/v1/instances/${id}/restore`, { image, memory: true })
      await runs(id)
      await says(id, 'first')
      assert.deepEqual(await volumesOf(id), mine)
      await say(id, 'again')
      await says(id, 'again')
      const { snapshots } = await ask<{ readonly snapshots: readonly unknown[] }>('GET', '/volume/v3/snapshots')
      assert.deepEqual(snapshots, [])
      await ask('DELETE', `/compute/v2.1/servers/${id}`)
    })
  }
})
