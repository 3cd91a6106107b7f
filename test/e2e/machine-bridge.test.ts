/** A real guest in a bridge of the host, beside a neighbour in a network namespace: they reach each other, and taps go with their machine. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { until, untilPrinted } from '../../src/instances/hypervisor/hypervisor.suite.ts'
import { assertBridge, tapName } from '../../src/instances/hypervisor/qemu/taps.ts'
import { ask, machineHost } from '../fixtures/guest/machine-host.ts'
import { noTinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { command, missingTool, must } from '../peers/command.ts'

/** Why there are no bridges and namespaces to be made here. */
function noBridges(): string | false {
  if (process.getuid?.() !== 0) return 'only root makes bridges'
  const name = newName()
  if (spawnSync('ip', ['link', 'add', name, 'type', 'bridge']).status !== 0) return 'bridges cannot be made here (CAP_NET_ADMIN)'
  spawnSync('ip', ['link', 'delete', name])
  return existsSync('/dev/net/tun') ? false : 'there is no /dev/net/tun'
}
function newName(): string {
  return `imptest${randomBytes(3).toString('hex')}`
}
const skip = noTinyGuest() || missingTool('ip', 'busybox') || noBridges()
const GUEST = '10.0.2.15' // which the tiny guest gives itself
const NEIGHBOUR = '10.0.2.2'
const MAC = 'fa:16:3e:7e:57:01'
const NOBODY = { uid: 65_534, gid: 65_534 }

/** A bridge that has no address of the host's, and a namespace in it that stands for another machine. */
async function network(t: TestContext) {
  const [bridge, neighbour] = [newName(), newName()]
  const ip = (line: string) => must(['ip', ...line.split(' ')])
  t.after(() => command(['ip', 'netns', 'delete', neighbour]))
  t.after(() => command(['ip', 'link', 'delete', bridge]))
  await ip(`link add ${bridge} type bridge forward_delay 0`) // else it forwards after 15 s, as if there were loops to be found
  await ip(`link set ${bridge} up`)
  await ip(`netns add ${neighbour}`)
  const port = newName()
  await ip(`link add ${port} type veth peer name eth0 netns ${neighbour}`)
  await ip(`link set ${port} master ${bridge} up`)
  await ip(`-n ${neighbour} addr add ${NEIGHBOUR}/24 dev eth0`)
  await ip(`-n ${neighbour} link set eth0 up`)
  return { bridge, asNeighbour: (...words: string[]) => command(['ip', 'netns', 'exec', neighbour, ...words]) }
}

test('a guest in a bridge reaches its neighbours and is reached; its tap is QEMU’s user’s and goes when it is off', {
  skip,
}, async (t) => {
  const { bridge, asNeighbour } = await network(t)
  await assertBridge(bridge, NOBODY)
  const host = await machineHost({ user: NOBODY })
  const hypervisor = await host.open()
  t.after(async () => {
    await hypervisor.close()
    await host.close()
  })
  const spec = host.spec({ networks: [{ mac: MAC, forwards: [], bridge }] })
  const tap = join('/sys/class/net', tapName(host.folder, spec.id, 0))
  await hypervisor.launch(spec)
  await untilPrinted(hypervisor, spec.id, 'ready')
  assert.equal((await asNeighbour('busybox', 'wget', '-qO-', `http://${GUEST}/`)).stdout, 'hello from the guest\n')
  assert.match((await asNeighbour('ip', 'neigh', 'show', GUEST)).stdout, new RegExp(MAC))
  assert.match(await ask(hypervisor, spec.id, `ping -c 1 -w 20 ${NEIGHBOUR}`), /1 packets received/)
  await hypervisor.stop(spec.id, 0)
  assert.ok(!existsSync(tap))
  await hypervisor.start(spec.id)
  assert.ok(existsSync(tap))
  await hypervisor.remove(spec.id)
  assert.ok(!existsSync(tap))
})

test('no tap stays of a launch that was killed, nor of a machine that died while nobody looked', { skip }, async (t) => {
  const { bridge } = await network(t)
  const host = await machineHost()
  t.after(() => host.close())
  const spec = host.spec({ disks: [], networks: [{ mac: MAC, forwards: [], bridge }] })
  const tap = join('/sys/class/net', tapName(host.folder, spec.id, 0))
  const program = join(import.meta.dirname, '../fixtures/guest/launch.ts')
  const child = spawn(process.execPath, [program, host.folder, JSON.stringify(spec)], {
    env: { ...process.env, NODE_TEST_CONTEXT: undefined, IMPRINT_FAILPOINT: 'machine:tapped' },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  assert.deepEqual(await once(child, 'exit'), [null, 'SIGKILL'])
  assert.ok(existsSync(tap), 'it was killed when the tap was there')
  const found = await host.open()
  assert.deepEqual(await found.list(), [])
  assert.ok(!existsSync(tap))

  await found.launch(spec)
  await found.close()
  assert.ok(existsSync(tap), 'a machine runs on, in its bridge')
  const again = await host.open()
  assert.equal((await again.show(spec.id)).power, 'running')
  assert.ok(existsSync(tap))
  await host.kill(spec.id)
  await until(again, spec.id, 'crashed')
  assert.ok(!existsSync(tap))
  await again.start(spec.id)
  await again.close()
  const pid = await host.pid(spec.id)
  await host.kill(spec.id)
  while (existsSync(`/proc/${pid}`)) await pause(20)
  const last = await host.open()
  assert.equal((await last.show(spec.id)).power, 'crashed')
  assert.ok(!existsSync(tap))
  await last.remove(spec.id)
  await last.close()
})
