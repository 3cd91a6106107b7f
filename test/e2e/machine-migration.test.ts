/** Machines on their way from one hypervisor to another, of which either is killed at each step. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type Failpoint, failpoints } from '../../src/base/failpoint.ts'
import { MiB } from '../../src/base/units.ts'
import type { MachineSpec } from '../../src/instances/hypervisor/hypervisor.ts'
import { counting, untilCounted } from '../../src/instances/hypervisor/machine-memory.suite.ts'
import type { MigrationTarget } from '../../src/instances/hypervisor/machine-migration.ts'
import type { QemuHypervisor } from '../../src/instances/hypervisor/qemu/qemu-hypervisor.ts'
import { ask, type MachineHost, machineHost } from '../fixtures/guest/machine-host.ts'
import { noTinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { freePort } from '../peers/daemon.ts'

const skip = noTinyGuest()
const LOOK_AGAIN_MS = 50
const GRACE_MS = 120_000
/** Where the source is killed, and whether the machine is at the target then. */
const ofSource: Readonly<Partial<Record<Failpoint, boolean>>> = {
  'migration:prepared': false,
  'migration:awaited': false,
  'migration:mirrored': false,
  'migration:still': false,
  'migration:sent': false,
  'migration:given': false,
  'migration:answered': true,
  'migration:removed': true,
}
const ofTarget: typeof ofSource = {
  'migration:receiving': false,
  'migration:waiting': false,
  'migration:filled': false,
  'migration:committed': true,
  'migration:running': true,
}

test('every failpoint of migrations is tried', () => {
  const tried = [...Object.keys(ofSource), ...Object.keys(ofTarget)]
  assert.deepEqual(tried.sort(), failpoints.filter((name) => name.startsWith('migration:')).sort())
})

function service(args: readonly string[], at: Failpoint) {
  const script = new URL('../fixtures/guest/migrate.ts', import.meta.url).pathname
  const env = { ...process.env, IMPRINT_FAILPOINT: at }
  const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'inherit'], env })
  return { child, ended: once(child, 'exit').then(([, signal]) => assert.equal(signal, 'SIGKILL', `it was to die at ${at}`)) }
}

async function pair(context: TestContext): Promise<readonly [MachineHost, MachineHost]> {
  const hosts = [await machineHost(), await machineHost()] as const
  context.after(async () => {
    for (const host of hosts) await host.close()
  })
  return hosts
}

type Side = readonly [MachineHost, QemuHypervisor]

/** With a hypervisor on each, which are closed before the hosts are. */
async function openPair(context: TestContext): Promise<readonly [Side, Side]> {
  const hosts = [await machineHost(), await machineHost()] as const
  const sides: readonly [Side, Side] = [
    [hosts[0], await hosts[0].open()],
    [hosts[1], await hosts[1].open()],
  ]
  context.after(async () => {
    for (const [, hypervisor] of sides) await hypervisor.close()
    for (const host of hosts) await host.close()
  })
  return sides
}

/** The only one of both that has the machine, when that is settled; it is told to nobody else. */
async function whoHas(id: string, sides: readonly Side[]) {
  for (;;) {
    const found = await Promise.all(sides.map(async ([, hypervisor]) => (await hypervisor.list()).find((each) => each.id === id)))
    assert.ok(found.filter((each) => each?.power === 'running').length <= 1, 'it never runs twice')
    const having = found.flatMap((each, side) => (each ? [side] : []))
    if (having.length === 1 && found[having[0]!]?.power === 'running') return having[0]!
    await pause(LOOK_AGAIN_MS)
  }
}

/** No trace of the machine, and none of the migration. */
async function assertNothing(host: MachineHost): Promise<void> {
  const names = (await readdir(host.folder)).filter((name) => name !== 'migration.sock' && !name.startsWith('trial'))
  assert.deepEqual(names, [])
}

test('whatever kills the source, the guest goes on at one of both, and once', { skip }, async (context) => {
  const hosts = await pair(context)
  const first = await hosts[0].open()
  const spec = await counting(hosts[0], first)
  await first.close()
  let at = 0
  for (const [failpoint, hasMoved] of Object.entries(ofSource)) {
    const [source, target] = [hosts[at]!, hosts[1 - at]!]
    const there = await target.open()
    const word = JSON.stringify(await there.receive(spec))
    await service([source.folder, 'leave', spec.id, word], failpoint as Failpoint).ended
    const here = await source.open()
    const now = await whoHas(spec.id, [
      [source, here],
      [target, there],
    ])
    assert.equal(now === 1, hasMoved, failpoint)
    const [host, hypervisor] = now === 0 ? [source, here] : [target, there]
    const count = await host.count(hypervisor, spec.id)
    assert.ok(count > 1, `at ${failpoint} it began anew`)
    await untilCounted(host, hypervisor, spec.id, count + 1)
    await assertNothing(now === 0 ? target : source)
    if (hasMoved) at = 1 - at
    await here.close()
    await there.close()
  }
})

test('whatever kills the target, the guest goes on at one of both, and once', { skip }, async (context) => {
  const hosts = await pair(context)
  const first = await hosts[0].open()
  const spec = await counting(hosts[0], first)
  await first.close()
  let at = 0
  for (const [failpoint, hasMoved] of Object.entries(ofTarget)) {
    const [source, target] = [hosts[at]!, hosts[1 - at]!]
    const here = await source.open()
    const { child, ended } = service([target.folder, 'receive', JSON.stringify(spec)], failpoint as Failpoint)
    const word = await firstLine(child.stdout)
    const migrated = here.migrateTo(spec.id, JSON.parse(word) as MigrationTarget).then(
      () => null,
      (error) => error.code,
    )
    await ended
    const there = await target.open() // where the last word was said, the source asks until somebody answers
    assert.equal(await migrated, hasMoved ? null : 'unavailable', failpoint)
    const now = await whoHas(spec.id, [
      [source, here],
      [target, there],
    ])
    assert.equal(now === 1, hasMoved, failpoint)
    const [host, hypervisor] = now === 0 ? [source, here] : [target, there]
    await untilCounted(host, hypervisor, spec.id, (await host.count(hypervisor, spec.id)) + 1)
    await assertNothing(now === 0 ? target : source)
    if (hasMoved) at = 1 - at
    await here.close()
    await there.close()
  }
})

async function firstLine(stdout: NodeJS.ReadableStream): Promise<string> {
  for await (const line of createInterface({ input: stdout })) return line
  throw new Error('it said nothing')
}

test('a guest that writes and serves moves with its port', { skip }, async (context) => {
  const [[host, here], [, there]] = await openPair(context)
  const hostPort = await freePort()
  const forwards = [{ protocol: 'tcp', hostAddress: '127.0.0.1', hostPort, guestPort: 80 }] as const
  const spec: MachineSpec = { ...(await counting(host, here, { networks: [{ mac: '52:54:00:12:34:56', forwards }] })) }
  const get = async (port: number) => (await fetch(`http://127.0.0.1:${port}/`)).text()
  assert.equal(await get(hostPort), 'hello from the guest\n')
  const otherPort = await freePort() // on one machine, both have it for a moment
  const moved = { ...spec, networks: [{ ...spec.networks[0]!, forwards: [{ ...forwards[0], hostPort: otherPort }] }] }
  const { downtimeMs, layerBytes, memoryBytes } = await here.migrateTo(spec.id, await there.receive(moved))
  assert.equal(await get(otherPort), 'hello from the guest\n')
  const mebibytes = (bytes: number) => (bytes / MiB).toFixed(1)
  context.diagnostic(
    `stood still for ${downtimeMs.toFixed(0)} ms; layers ${mebibytes(layerBytes)} MiB, memory ${mebibytes(memoryBytes)} MiB`,
  )
})

test('a machine moves with a disk that is written through to its store, in the place that it has', { skip }, async (context) => {
  const [[host, here], [, there]] = await openPair(context)
  const spec = await counting(host, here)
  const { id } = spec
  const store = await host.makeStore(64 * MiB)
  const data = { name: 'data', bytes: 64 * MiB, serial: 'the-data' }
  const volume = { name: 'volume', bytes: 64 * MiB, serial: 'the-volume', store: store.address }
  for (const disk of [data, volume]) {
    await here.attach(id, disk)
    await host.untilSeen(here, id, disk.serial, true)
  }
  await here.detach(id, data.name, GRACE_MS)
  const device = 'for d in /sys/block/vd*; do [ "$(cat $d/serial)" = the-volume ] && echo /dev/$(basename $d); done'
  await ask(here, id, `echo written | dd of=$(${device}) bs=512 conv=sync,fsync 2>/dev/null`)
  await here.migrateTo(id, await there.receive({ ...spec, disks: [spec.disks[0]!, volume] }))
  await ask(
    there,
    id,
    `echo and on | dd of=$(${device}) bs=512 seek=1 conv=sync,fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches`,
  )
  assert.match(await ask(there, id, `head -c 1024 $(${device})`), /written\n\0*and on/)
  assert.match(Buffer.from(await store.source.read(0, 1024)).toString('latin1'), /^written\n\0*and on\n/)
})
