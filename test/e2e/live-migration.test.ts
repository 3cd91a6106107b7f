/** A guest goes from host to host and back, by the command line of OpenStack, while it is asked for its counter through a forwarded port. */
import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { startAgent } from '../durability/machine-agent.ts'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { noTinyGuest, tinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { missingTool } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { clientSession } from './client-session.ts'
import { startImprint } from './image-service.ts'

type Row = Readonly<Record<string, unknown>>
interface Server {
  readonly id: string
  readonly status: string
  readonly properties: Readonly<Record<string, string>>
}

const skip = missingTool('openstack') || noTinyGuest()
const ASK_EVERY_MS = 10

/** It counts in memory, shows that at its web server, and writes it to the volume that it has. */
const userData = `#!/bin/sh
mkdir -p /www
(i=0; while :; do i=$((i+1)); echo $i > /www/new; mv /www/new /www/count; usleep 10000; done) &
own=$(cut -c1-20 /sys/class/dmi/id/product_uuid)
(while :; do
  for disk in /sys/block/vd?; do
    serial=$(cat $disk/serial 2>/dev/null)
    [ -n "$serial" ] && [ "$serial" != "$own" ] || continue
    printf '%-16s' "$(cat /www/count)" | dd of=/dev/\${disk##*/} conv=notrunc,fsync 2>/dev/null
  done
  usleep 200000
done) &
`

test('a server moves between hosts while it is asked for its counter', { skip }, async (t) => {
  const scratch = await scratchFolder('e2e')
  t.after(scratch.stop)
  const hosts = ['left', 'right'] as const
  const agents = await Promise.all(hosts.map((name) => startAgent(join(scratch.path, name))))
  t.after(async () => {
    for (const name of hosts) await endMachines(join(scratch.path, name))
    for (const agent of agents) await agent.stop()
  })
  const sockets = hosts.map((name) => `${name}=${join(scratch.path, name, 'agent.sock')}`).join(',')
  const settings = {
    IMPRINT_INSTANCE_ACCELERATOR: 'tcg',
    IMPRINT_INSTANCE_STOP_SECONDS: '1',
    IMPRINT_INSTANCE_HOSTS: sockets,
  }
  const service = await startImprint({ settings })
  t.after(() => endMachines(service.dataFolder))
  t.after(service.stop)
  const { ok, json, refused } = clientSession(service.identityUrl, service.cast.admin, scratch.path)
  const step = (title: string, work: () => Promise<void>) => t.test(title, work)
  const show = () => json<Server & Row>`openstack server show web`
  const hostNow = async () => (await show())['OS-EXT-SRV-ATTR:host']
  let port = 0
  const moves = { before: 0 }

  const counter = async (): Promise<number> => {
    const answer = await fetch(`http://127.0.0.1:${port}/count`, { signal: AbortSignal.timeout(2000) })
    return Number(await answer.text())
  }
  /** Asks until it is answered: on its way, and on a busy machine, it may not be. */
  const counted = async (): Promise<number> => {
    for (;;) {
      const count = await counter().catch(() => 0)
      if (count > 0) return count
      await pause(ASK_EVERY_MS)
    }
  }
  /** Asks until told to end. @returns the longest time between two answers, and how often the counter went back */
  const watch = () => {
    let isOver = false
    const watching = (async () => {
      let [last, lastAt, longestMs, back] = [0, performance.now(), 0, 0]
      while (!isOver) {
        const count = await counter().catch(() => null)
        if (count !== null && Number.isFinite(count) && count > 0) {
          longestMs = Math.max(longestMs, performance.now() - lastAt)
          if (count < last) back += 1
          ;[last, lastAt] = [count, performance.now()]
        }
        await pause(ASK_EVERY_MS)
      }
      return { longestMs, back, last }
    })()
    return async () => {
      isOver = true
      return watching
    }
  }
  const move = async (to: string) => {
    moves.before = await counted()
    const ended = watch()
    try {
      await ok`openstack --os-compute-api-version 2.30 server migrate --live-migration --host ${to} --wait web`
      assert.equal(await hostNow(), to)
      const before = await counted()
      while ((await counted()) <= before) await pause(ASK_EVERY_MS)
    } catch (error) {
      await ended()
      throw error
    }
    const { longestMs, back } = await ended()
    assert.equal(back, 0, 'the counter never goes back: it is one guest')
    const [event] = await json<Row[]>`openstack --os-compute-api-version 2.51 server event list web`
    assert.equal(event?.Action, 'live-migration')
    const { message } =
      await json<Row>`openstack --os-compute-api-version 2.51 server event show web ${String(event?.['Request ID'])}`
    t.diagnostic(`to ${to}: ${message}; the longest time without an answer was ${longestMs.toFixed(0)} ms`)
    assert.match(String(message), /stood still for \d+ ms/)
  }

  await step('it starts on the host that is named, with a port, a volume and metadata', async () => {
    await ok`openstack flavor create --ram 128 --disk 1 --vcpus 1 e2e-tiny`
    await ok`openstack image create --disk-format raw --container-format bare --file ${await tinyGuest()} tiny`
    await ok`openstack volume create --size 1 data`
    const script = join(scratch.path, 'user-data')
    await writeFile(script, userData)
    const forwards = 'imprint:forwards=tcp:0:80'
    await ok`openstack --os-compute-api-version 2.74 server create --flavor e2e-tiny --image tiny --nic auto --host left --user-data ${script} --property ${forwards} --property role=web --wait web`
    assert.equal(await hostNow(), 'left')
    port = Number((await show()).properties['imprint:forwards']?.split(':')[1])
    await counted()
    await ok`openstack server add volume web data`
    const names = (await json<Row[]>`openstack hypervisor list`).map((row) => row['Hypervisor Hostname'])
    assert.deepEqual(names, [hostname(), 'left', 'right'])
  })
  await step('from agent to agent, to the service itself, and back', async () => {
    await move('right')
    await move(hostname())
    await move('left')
  })
  await step('console, metadata and the volume have come along', async () => {
    assert.match(await ok`openstack console log show web`, /guest boots=1[\s\S]*ready/)
    assert.equal((await show()).properties.role, 'web')
    assert.equal((await json<Row[]>`openstack server volume list web`).length, 1)
    const now = await counted()
    while ((await counted()) < now + 100) await pause(ASK_EVERY_MS) // it has had time to write that
    await ok`openstack server remove volume web data`
    while ((await json<Row>`openstack volume show data`).status !== 'available') await pause(ASK_EVERY_MS)
    await ok`openstack image create --volume data --disk-format raw written`
    while ((await json<Row>`openstack image show written`).status !== 'active') await pause(ASK_EVERY_MS)
    const { id: token } = await json<Row>`openstack token issue`
    const address = new URL(`/image/v2/images/${(await json<Row>`openstack image show written`).id}/file`, service.identityUrl)
    const answer = await fetch(address, { headers: { 'x-auth-token': String(token), range: 'bytes=0-15' } })
    const begins = await answer.text()
    assert.ok(Number(begins) > moves.before, `the volume has ${begins}, and it was at ${moves.before} when it moved`)
    assert.match(
      await refused`openstack --os-compute-api-version 2.30 server migrate --live-migration --host left web`,
      /current host/,
    )
  })
  await step('without a host it goes where there is room; a snapshot and a reboot find it there', async () => {
    const before = await hostNow()
    await ok`openstack server migrate --live-migration --wait web`
    assert.notEqual(await hostNow(), before)
    await ok`openstack server image create --name moved --wait web`
    await ok`openstack server reboot --hard --wait web`
    await counted()
    await ok`openstack server delete --wait web`
  })
})
