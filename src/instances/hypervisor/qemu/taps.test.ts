import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { existsSync, readFileSync, readlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { assertBridge, makeTaps, removeTaps, tapName } from './taps.ts'

const newName = () => `imptest${randomBytes(4).toString('hex')}`
const ip = (line: string) => execFileSync('ip', line.split(' '), { stdio: ['ignore', 'pipe', 'pipe'] })

/** Why there are no bridges to be made here. */
function noBridges(): string | false {
  if (process.getuid?.() !== 0) return 'only root makes bridges'
  const name = newName()
  if (spawnSync('ip', ['link', 'add', name, 'type', 'bridge']).status !== 0) return 'bridges cannot be made here (CAP_NET_ADMIN)'
  ip(`link delete ${name}`)
  return existsSync('/dev/net/tun') ? false : 'there is no /dev/net/tun'
}
const skip = noBridges()

function newBridge(t: TestContext): string {
  const name = newName()
  ip(`link add ${name} type bridge`)
  ip(`link set ${name} up`)
  t.after(() => ip(`link delete ${name}`))
  return name
}
const card = (bridge: string) => ({ mac: 'fa:16:3e:12:34:56', forwards: [], bridge })
const own = { mac: 'fa:16:3e:12:34:57', forwards: [] }
const said = (name: string, file: string) => readFileSync(join('/sys/class/net', name, file), 'latin1').trim()

test('a tap is its user’s, in the bridge, up, and gone when it is removed; a second start finds it made anew', {
  skip,
}, async (t) => {
  const bridge = newBridge(t)
  const host = { root: '/somewhere', user: { uid: 65534, gid: 65534 } }
  const machine = { id: randomUUID(), networks: [own, card(bridge)] }
  const [none, tap] = [tapName(host.root, machine.id, 0), tapName(host.root, machine.id, 1)]
  t.after(() => removeTaps(host, machine.id))
  for (const _start of [1, 2]) {
    await makeTaps(host, machine)
    assert.ok(!existsSync(join('/sys/class/net', none)), 'a network of its own needs none')
    assert.equal(basename(readlinkSync(join('/sys/class/net', tap, 'master'))), bridge)
    assert.deepEqual(
      [said(tap, 'owner'), said(tap, 'address'), said(tap, 'ifalias'), Number(said(tap, 'flags')) & 1],
      ['65534', 'fe:16:3e:12:34:56', `imprint-${machine.id}`, 1],
    )
  }
  await removeTaps({ ...host, root: '/elsewhere' }, machine.id)
  assert.ok(existsSync(join('/sys/class/net', tap)), 'that of another hypervisor is left alone')
  await removeTaps(host, machine.id)
  assert.ok(!existsSync(join('/sys/class/net', tap)))
  await removeTaps(host, machine.id)
})

test('where the bridge is gone, none is left', { skip }, async (t) => {
  const host = { root: '/somewhere', user: undefined }
  const machine = { id: randomUUID(), networks: [card(newBridge(t)), card(newName())] }
  await assert.rejects(makeTaps(host, machine), { code: 'unavailable', message: /does not get into the bridge .*imptest/ })
  for (const index of [0, 1]) assert.ok(!existsSync(join('/sys/class/net', tapName(host.root, machine.id, index))))
})

test('a bridge is looked at before any machine is in it, and what is missing is told as a command', { skip }, async (t) => {
  const bridge = newBridge(t)
  await assertBridge(bridge, undefined)
  ip(`link set ${bridge} down`)
  await assert.rejects(assertBridge(bridge, undefined), {
    code: 'invalid-request',
    message: new RegExp(`ip link set ${bridge} up$`),
  })
  await assert.rejects(assertBridge('lo', undefined), {
    code: 'invalid-request',
    message: /lo is no bridge; make one: ip link add/,
  })
  const absent = newName()
  await assert.rejects(assertBridge(absent, undefined), {
    code: 'invalid-request',
    message: new RegExp(
      `no bridge ${absent}; make it: ip link add ${absent} type bridge forward_delay 0 && ip link set ${absent} up`,
    ),
  })
})

test('names of taps are what the kernel takes, and each its own', () => {
  const names = [tapName('/a', 'm', 0), tapName('/a', 'm', 1), tapName('/a', 'n', 0), tapName('/b', 'm', 0)]
  assert.equal(new Set(names).size, 4)
  for (const name of names) assert.match(name, /^imp[0-9a-f]{12}$/)
})
