/** The memory of QEMU's machines: what the suite cannot ask of every adapter. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type Failpoint, failpoints } from '../../src/base/failpoint.ts'
import { formatBytes, MiB } from '../../src/base/units.ts'
import { untilPrinted } from '../../src/instances/hypervisor/hypervisor.suite.ts'
import { copyOf, counting, memoryOf, saveAll, untilCounted } from '../../src/instances/hypervisor/machine-memory.suite.ts'
import type { QemuHypervisor } from '../../src/instances/hypervisor/qemu/qemu-hypervisor.ts'
import { ask, type MachineHost, machineHost, typeLine } from '../fixtures/guest/machine-host.ts'
import { noTinyGuest } from '../fixtures/guest/tiny-guest.ts'

const skip = noTinyGuest()

async function opened(context: TestContext): Promise<[MachineHost, QemuHypervisor]> {
  const host = await machineHost()
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
