/** The memory of QEMU's machines: what the suite cannot ask of every adapter. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type Failpoint, failpoints } from '../../src/base/failpoint.ts'
import { formatBytes, MiB } from '../../src/base/units.ts'
import { untilPrinted } from '../../src/instances/hypervisor/hypervisor.suite.ts'
import type { Hardware } from '../../src/instances/hypervisor/hypervisor.ts'
import { copyOf, counting, memoryOf, saveAll, untilCounted } from '../../src/instances/hypervisor/machine-memory.suite.ts'
import type { QemuHypervisor, QemuOptions } from '../../src/instances/hypervisor/qemu/qemu-hypervisor.ts'
import { ask, type MachineHost, machineHost, typeLine } from '../fixtures/guest/machine-host.ts'
import { noTinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { freePort } from '../peers/daemon.ts'

const skip = noTinyGuest()

async function opened(context: TestContext, options: Partial<QemuOptions> = {}): Promise<[MachineHost, QemuHypervisor]> {
  const host = await machineHost(options)
  const hypervisor = await host.open()
  context.after(async () => {
    await hypervisor.close() // a machine's process may be watched by one only
    await host.close()
  })
  return [host, hypervisor]
}

/** In a process of its own, that dies at the failpoint, or when it has the first bytes of the stream. */
async function killed(at: Failpoint | null, args: readonly string[]): Promise<void> {
  const script = new URL('../fixtures/guest/save-memory.ts', import.meta.url).pathname
  const child = spawn(process.execPath, [script, ...args], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, ...(at ? { IMPRINT_FAILPOINT: at } : {}) },
  })
  assert.deepEqual(await once(child, 'exit'), [null, 'SIGKILL'], `it was to die at ${at ?? 'the first bytes'}`)
}

test('a guest whose service dies as it saves its memory goes on, and nothing is left of that', { skip }, async (context) => {
  const host = await machineHost()
  context.after(() => host.close())
  const first = await host.open()
  const { id } = await counting(host, first)
  await first.close()
  const stream = join(host.folder, '..', 'stream')
  for (const at of [null, 'memory:begun', 'memory:still', 'memory:sealed', 'memory:sent'] as const) {
    for (const isPaused of [false, true]) {
      const before = await host.open()
      const count = await host.count(before, id)
      if (isPaused) await before.pause(id)
      await before.close()
      await killed(at, [host.folder, at === null ? 'die' : 'save', id, stream])
      const hypervisor = await host.open()
      assert.equal((await hypervisor.show(id)).power, isPaused ? 'paused' : 'running', `at ${at}`)
      if (isPaused) await hypervisor.resume(id)
      await untilCounted(host, hypervisor, id, count + 1)
      assert.deepEqual((await readdir(join(host.folder, id))).sort(), ['machine.json', 'process', 'run', 'words.log'])
      await hypervisor.close()
    }
  }
  const last = await host.open()
  const saved = await saveAll(last, id)
  await last.stop(id, 0)
  await last.start(id, { memory: memoryOf(saved) })
  assert.ok((await host.count(last, id)) > 0)
  await last.close()
})

test('a machine whose service dies when its memory is back, and before it goes on, is as it was', { skip }, async (context) => {
  const host = await machineHost()
  context.after(() => host.close())
  const first = await host.open()
  const spec = await counting(host, first)
  const saved = await saveAll(first, spec.id)
  const copy = await copyOf(host, first, spec, saved)
  await first.stop(spec.id, 0)
  await first.close()
  const stream = join(host.folder, '..', 'stream')
  await writeFile(stream, saved.stream)
  await killed('memory:filled', [host.folder, 'start', spec.id, stream, saved.shape])
  await killed('memory:filled', [host.folder, 'launch', JSON.stringify(copy), stream, saved.shape])
  const hypervisor = await host.open()
  assert.deepEqual(
    (await hypervisor.list()).map(({ id, power }) => [id, power]),
    [[spec.id, 'shutdown']],
  )
  await hypervisor.start(spec.id, { memory: memoryOf(saved) })
  await hypervisor.launch({ ...copy, memory: memoryOf(saved) })
  for (const { id } of [spec, copy]) assert.ok((await host.count(hypervisor, id)) > 0)
  await hypervisor.close()
})

test('every failpoint of memory is tried', () => {
  const tried = ['memory:begun', 'memory:still', 'memory:sealed', 'memory:sent', 'memory:filled']
  assert.deepEqual(tried.sort(), failpoints.filter((name) => name.startsWith('memory:')).sort())
})

test('the disks are of the moment of the memory, while the guest writes', { skip }, async (context) => {
  const [host, hypervisor] = await opened(context)
  const spec = host.spec()
  await hypervisor.launch(spec)
  await untilPrinted(hypervisor, spec.id, 'ready')
  const [start, blocks] = [(512 * MiB) / 512, 100_000]
  const write = `printf "%-511d\\n" $i | dd of=/dev/vda bs=512 seek=$((${start}+i)) conv=notrunc,fsync 2>/dev/null`
  await typeLine(hypervisor, spec.id, `i=0; while [ $i -lt ${blocks} ]; do i=$((i+1)); ${write}; echo tick-$i; done`)
  await untilPrinted(hypervisor, spec.id, 'tick-20')
  const saved = await saveAll(hypervisor, spec.id)
  context.diagnostic(`stood still for ${saved.pausedMs.toFixed(0)} ms, ${formatBytes(saved.stream.length)}`)
  const layer = await hypervisor.openLayer(spec.id, 'root', saved.layers.root![0]!)
  const written = Buffer.from(await layer.read(start * 512, 2 * MiB)).toString('latin1')
  await layer.close()
  const last = Math.max(...[...written.matchAll(/(\d+) *\n/g)].map(([, number]) => Number(number)))
  const copy = await copyOf(host, hypervisor, spec, saved)
  await hypervisor.remove(spec.id)
  await hypervisor.launch({ ...copy, memory: memoryOf(saved) })
  await untilPrinted(hypervisor, copy.id, 'tick-', 3)
  const said = Buffer.from(await hypervisor.consoleLog(copy.id, MiB)).toString('latin1')
  const next = Number(/tick-(\d+)\r?\n/.exec(said)?.[1])
  assert.ok(next === last || next === last + 1, `the disk has ${last}, and the guest went on with ${next}`)
})

test('a guest that changes its memory faster than it is stored stands still for the rest', { skip }, async (context) => {
  const [host, hypervisor] = await opened(context)
  const { id, memoryBytes } = await counting(host, hypervisor)
  await ask(hypervisor, id, '(while :; do dd if=/dev/vda of=/large bs=1M count=28 conv=notrunc 2>/dev/null; done) & true')
  let bytes = 0
  const { pausedMs } = await hypervisor.saveMemory(id, async (body) => {
    for await (const part of body) {
      bytes += part.length
      await pause(1)
    }
  })
  context.diagnostic(`stood still for ${pausedMs.toFixed(0)} ms, ${formatBytes(bytes)}`)
  assert.ok(bytes < 6 * memoryBytes)
  await untilCounted(host, hypervisor, id, (await host.count(hypervisor, id)) + 1)
})

const machines: readonly (readonly [string, Partial<Hardware>, boolean])[] = [
  ['scsi and a guest agent', { diskBus: 'scsi', qemuGuestAgent: true }, true],
  ['ide and an rtl8139 card', { diskBus: 'ide', networkModel: 'rtl8139' }, true],
  ['q35, sata and an e1000e card', { machineType: 'q35', diskBus: 'sata', networkModel: 'e1000e' }, true],
  ['q35, virtio and no randomness', { machineType: 'q35', randomness: false }, false],
]
for (const [what, hardware, hasSeed] of machines) {
  test(`a machine with ${what} goes on from its memory`, { skip }, async (context) => {
    const [host, hypervisor] = await opened(context)
    const forwards = [{ protocol: 'tcp', hostAddress: '127.0.0.1', hostPort: await freePort(), guestPort: 80 }] as const
    const metaData = JSON.stringify({ 'instance-id': 'i-1' })
    const seed = { metaData, userData: Buffer.from(''), networkConfig: null, vendorData: null }
    const spec = await counting(host, hypervisor, {
      cpus: 2,
      hardware: { ...host.spec().hardware, ...hardware },
      networks: [{ mac: '52:54:00:12:34:56', forwards }],
      ...(hasSeed ? { seed } : {}),
    })
    const page = async () => (await fetch(`http://127.0.0.1:${forwards[0].hostPort}/`)).text()
    const before = [await ask(hypervisor, spec.id, LOOK), await host.count(hypervisor, spec.id)] as const
    const saved = await saveAll(hypervisor, spec.id)
    assert.equal(saved.seedDisc !== null, hasSeed)
    const { seed: _onItsDisc, ...copy } = await copyOf(host, hypervisor, spec, saved)
    await hypervisor.remove(spec.id)
    await hypervisor.launch({ ...copy, memory: memoryOf(saved) })
    assert.equal(await ask(hypervisor, copy.id, LOOK), before[0])
    assert.ok((await host.count(hypervisor, copy.id)) >= before[1])
    if (spec.hardware.networkModel === 'virtio') assert.equal(await page(), 'hello from the guest\n')
    await saveAll(hypervisor, copy.id)
  })
}
/** What is there, read anew: disks, the seed, processors. */
const LOOK =
  'sync; echo 3 >/proc/sys/vm/drop_caches; cat /proc/partitions /seed/meta-data /disk/boots 2>&1; grep -c ^processor /proc/cpuinfo'

const noFirmware = skip || (existsSync('/usr/share/qemu/firmware') ? false : 'ovmf is not installed')
test('a machine that starts by UEFI goes on from its memory', { skip: noFirmware }, async (context) => {
  const [host, hypervisor] = await opened(context)
  for (const secureBoot of [false, true]) {
    const spec = host.spec({ hardware: { ...host.spec().hardware, firmware: 'uefi', secureBoot } })
    await hypervisor.launch(spec)
    await untilPrinted(hypervisor, spec.id, 'BdsDxe')
    const saved = await saveAll(hypervisor, spec.id)
    const copy = { ...spec, id: randomUUID() }
    await hypervisor.launch({ ...copy, memory: memoryOf(saved) })
    assert.equal((await hypervisor.show(copy.id)).power, 'running')
    await saveAll(hypervisor, copy.id)
    for (const { id } of [spec, copy]) await hypervisor.remove(id)
  }
})

const notRoot = skip || (process.getuid?.() === 0 ? false : 'only root can run QEMU as somebody else')
test('memory is saved and taken back where QEMU is another user', { skip: notRoot }, async (context) => {
  const [host, hypervisor] = await opened(context, { user: { uid: 65534, gid: 65534 } })
  const { id } = await counting(host, hypervisor)
  const saved = await saveAll(hypervisor, id)
  await hypervisor.stop(id, 0)
  await hypervisor.start(id, { memory: memoryOf(saved) })
  assert.ok((await host.count(hypervisor, id)) > 0)
})
