/** Snapshots, backups, restores, rebuilds and clones of guests that run, by the `openstack` client and by `/v1`. */
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { HANDS } from '../fixtures/guest/hands.ts'
import { noTinyGuest, tinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { command, missingTool, must } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { clientSession } from './client-session.ts'
import { startImprint } from './image-service.ts'

const skip = missingTool('openstack', 'e2fsck', 'debugfs') || noTinyGuest()
type Row = Readonly<Record<string, unknown>>
interface Server {
  readonly id: string
  readonly status: string
  readonly 'OS-EXT-STS:task_state': string | null
  readonly metadata: Readonly<Record<string, string>>
}

/** A file system that can be frozen, behind the guest's own. */
const DATA_MIB = 64
const mountData = `losetup -o $((${DATA_MIB} << 20)) /dev/loop0 /dev/vda; mkdir -p /data; mount -t ext4 /dev/loop0 /data`

test('snapshot, backup, restore, rebuild, clone', { skip }, async (t) => {
  const scratch = await scratchFolder('snapshots')
  t.after(scratch.stop)
  const service = await startImprint({ settings: { IMPRINT_INSTANCE_ACCELERATOR: 'tcg' } })
  t.after(() => endMachines(service.dataFolder))
  t.after(service.stop)
  const operator = clientSession(service.identityUrl, service.cast.admin, scratch.path)
  const { ok, json } = clientSession(service.identityUrl, service.cast.member, scratch.path)
  const step = (title: string, work: () => Promise<void>) => t.test(title, work)

  const ask = async <T>(method: string, path: string, body?: unknown): Promise<T> => {
    const headers = { 'x-auth-token': service.cast.member.token, 'content-type': 'application/json' }
    const url = new URL(service.identityUrl).origin + path
    const answer = await fetch(url, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
    const text = await answer.text()
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`)
    return (text === '' ? undefined : JSON.parse(text)) as T
  }
  const v1 = <T>(method: string, path: string, body?: unknown): Promise<T> => ask(method, `/v1${path}`, body)
  const until = async (what: string, holds: () => Promise<boolean>): Promise<void> => {
    for (let tries = 0; tries < 300; tries += 1) {
      if (await holds()) return
      await pause(100)
    }
    assert.fail(`it never came to pass: ${what}`)
  }
  /** What is asked over and over is asked without the client, which takes its time to start. */
  const show = async (name: string): Promise<Server> => {
    const { servers } = await ask<{ readonly servers: readonly Server[] }>('GET', `/compute/v2.1/servers/detail?name=^${name}$`)
    assert.equal(servers.length, 1, `there is one server ${name}`)
    return servers[0]!
  }
  const atRest = (server: string, status = 'ACTIVE') =>
    until(`${server} is ${status}`, async () => {
      const shown = await show(server)
      return shown.status === status && shown['OS-EXT-STS:task_state'] === null
    })
  const imageActive = (image: string) =>
    until(`${image} is active`, async () => (await ask<Row>('GET', `/image/v2/images/${image}`)).status === 'active')
  /** @returns what the script said in the guest */
  const inGuest = async (server: string, script: string): Promise<string> => {
    const { metadata } = await show(server)
    const [, port] = metadata['imprint:forwards']!.split(':')
    let said = ''
    await until(`${server} answers`, async () => {
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

  const hands = join(scratch.path, 'user-data')
  await writeFile(hands, HANDS)
  await operator.ok`openstack flavor create --ram 128 --disk 1 --vcpus 1 tiny`
  await ok`openstack image create --disk-format raw --container-format bare --file ${await tinyGuest({ agent: true })}
    --property os_distro=tiny --property hw_qemu_guest_agent=yes tiny`
  await ok`openstack server create --flavor tiny --image tiny --user-data ${hands} --property imprint:forwards=tcp:0:80 --wait web`
  const { id } = await show('web')
  let counted = 0

  await step(
    'an image of a guest that writes all the while: the guest goes on, and the file system in the image is whole',
    async () => {
      await inGuest(
        'web',
        `losetup -o $((${DATA_MIB} << 20)) /dev/loop0 /dev/vda; mke2fs -q /dev/loop0; losetup -d /dev/loop0; ${mountData}`,
      )
      const writer =
        'n=0; touch /writing; while [ -e /writing ]; do n=$((n+1)); echo $n > /data/count.new; sync; mv /data/count.new /data/count; done'
      await inGuest('web', `(${writer}) >/dev/null 2>&1 &`)
      await until('the writer writes', async () => Number(await inGuest('web', 'cat /data/count')) > 3)
      const before = Number(await inGuest('web', 'cat /data/count'))
      await ok`openstack server image create --name running --wait web`
      await atRest('web')
      counted = Number(await inGuest('web', 'cat /data/count'))
      assert.ok(counted > before)
      const image = await json<Row>`openstack image show running`
      const properties = image.properties as Readonly<Record<string, string>>
      assert.deepEqual([image.disk_format, properties.instance_uuid, properties.os_distro], ['raw', id, 'tiny'])
      assert.equal(properties.imprint_consistency, 'file-system', properties.imprint_consistency_evidence)
      const saved = join(scratch.path, 'running.raw')
      await ok`openstack image save --file ${saved} running`
      const data = join(scratch.path, 'data.ext2')
      await must(['dd', `if=${saved}`, `of=${data}`, 'bs=1M', `skip=${DATA_MIB}`, 'conv=sparse'])
      const check = await command(['e2fsck', '-f', '-n', data])
      assert.equal(check.code, 0, check.stdout)
      const { stdout } = await command(['debugfs', '-R', 'cat count', data])
      assert.ok(Number(stdout) >= before && Number(stdout) <= counted, `${before} <= ${stdout} <= ${counted}`)
    },
  )

  await step('an instance that starts from it has its data; the image may go meanwhile', async () => {
    await ok`openstack server create --flavor tiny --image running --user-data ${hands} --property imprint:forwards=tcp:0:80 --wait second`
    await ok`openstack image delete running`
    await inGuest('second', mountData)
    const found = Number(await inGuest('second', 'cat /data/count'))
    assert.ok(found > 0 && found <= counted)
    assert.equal(await inGuest('second', 'cat /disk/boots'), '2')
    assert.ok(Number(await inGuest('web', 'cat /data/count; rm /writing')) > counted)
  })

  await step('restored, an instance has its file back, and is the same', async () => {
    await inGuest('second', 'echo precious > /disk/kept; sync')
    await ok`openstack server image create --name before --wait second`
    await atRest('second')
    await inGuest('second', 'rm /disk/kept; echo worse > /disk/bad; sync')
    const { id: snapshot } = await json<{ readonly id: string }>`openstack image show before`
    const { id: second } = await show('second')
    await v1('POST', `/instances/${second}/restore`, { image: snapshot })
    await atRest('second')
    assert.equal(await inGuest('second', 'cat /disk/kept; ls /disk/bad 2>/dev/null'), 'precious')
    assert.equal((await show('second')).id, second)
  })

  await step('rebuilt, it is new from its image, under the same id', async () => {
    const { id: second } = await show('second')
    await ok`openstack server rebuild --image tiny --wait second`
    await atRest('second')
    assert.equal((await show('second')).id, second)
    assert.equal(await inGuest('second', 'cat /disk/boots; ls /disk/kept 2>/dev/null'), '1')
  })

  await step('backups rotate', async () => {
    for (const name of ['first', 'second', 'third']) {
      await ok`openstack server backup create --name ${name} --type daily --rotate 2 --wait second`
      await atRest('second')
    }
    const names = async () => (await json<Row[]>`openstack image list --property backup_type=daily`).map(({ Name }) => Name)
    await until('the first is gone', async () => !(await names()).includes('first'))
    assert.deepEqual((await names()).sort(), ['second', 'third'])
  })

  await step('a clone has the disk of that moment and goes its own way', async () => {
    await inGuest('second', 'echo shared > /disk/common; sync')
    const { id: second } = await show('second')
    await v1('POST', `/instances/${second}/clone`, { name: 'twin' })
    await atRest('twin')
    await atRest('second')
    await inGuest('second', 'echo mine > /disk/common; sync')
    assert.equal(await inGuest('twin', 'cat /disk/common'), 'shared')
    assert.notEqual((await show('twin')).id, second)
  })

  await step('with its memory an instance goes on in the middle of what it did, restored and as another one', async () => {
    const { id: second } = await show('second')
    await inGuest(
      'second',
      'echo 1 > /tmp/started; (n=0; while :; do n=$((n+1)); echo $n > /count.new; mv /count.new /count; sleep 0.1; done) >/dev/null 2>&1 &',
    )
    const count = async (server: string): Promise<number> => {
      let said = ''
      await until(`${server} says how far it has counted`, async () => {
        said = await inGuest(server, 'cat /count') // in memory: its root is an initramfs
        return /^\d+$/.test(said)
      })
      return Number(said)
    }
    await until('the counter runs', async () => (await count('second')) > 5)
    const { image } = await v1<{ readonly image: string }>('POST', `/instances/${second}/snapshots`, {
      name: 'awake',
      memory: true,
    })
    await imageActive(image)
    await atRest('second')
    const parts = await v1<{ readonly parts: readonly { readonly name: string }[] }>('GET', `/images/${image}/parts`)
    assert.deepEqual(
      parts.parts.map(({ name }) => name),
      ['machine', 'memory'],
    )
    const later = await count('second')
    await until('the counter goes on', async () => (await count('second')) > later + 50)

    await v1('POST', `/instances/${second}/restore`, { image, memory: true })
    await atRest('second')
    const back = await count('second')
    assert.ok(back >= 5 && back < later + 50, `${back} is of the snapshot`)
    await until('the counter goes on from there', async () => (await count('second')) > back)
    const boots = await inGuest('second', 'cat /disk/boots')

    const { id: third } = await v1<{ readonly id: string }>('POST', '/instances', { image, name: 'third', memory: true })
    await atRest('third')
    assert.notEqual(third, second)
    await until('the counter goes on in the other one', async () => (await count('third')) > 5)
    assert.equal(await inGuest('third', 'cat /disk/boots'), boots, 'it was not started')
  })
})
