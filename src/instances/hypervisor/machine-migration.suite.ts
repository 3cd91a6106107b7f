import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import type { DiskLayers } from './disk-layers.ts'
import type { Hypervisor, MachineSpec } from './hypervisor.ts'
import { counting, type MemoryHostOfTests, saveAll, untilCounted } from './machine-memory.suite.ts'
import type { MachineMemory } from './machine-memory.ts'
import type { MachineMigration } from './machine-migration.ts'

/** Hosts that reach the same bases. */
export interface MigrationHost extends MemoryHostOfTests {
  open(): Promise<Hypervisor & DiskLayers & MachineMemory & MachineMigration>
}

/** From where the guest's own files are. */
const [SEALED, LAST] = [512 * 1024 * 1024, 600 * 1024 * 1024]
const sector = (fill: string) => Buffer.alloc(512, fill)

export function machineMigrationSuite(
  adapter: string,
  hosts: () => Promise<readonly [MigrationHost, MigrationHost]>,
  options: { readonly skip?: string | false } = {},
) {
  type Opened = Awaited<ReturnType<MigrationHost['open']>>
  interface Side {
    readonly on: MigrationHost
    readonly hypervisor: Opened
  }
  const must = (title: string, check: (here: Side, there: Side, context: TestContext) => Promise<void>) =>
    test(`${adapter} must ${title}`, { skip: options.skip ?? false }, async (context) => {
      const both = await hosts()
      const sides = await Promise.all(both.map(async (on) => ({ on, hypervisor: await on.open() })))
      context.after(async () => {
        for (const { hypervisor } of sides) await hypervisor.close()
        for (const { on } of sides) await on.close()
      })
      await check(sides[0]!, sides[1]!, context)
    })

  must('take a running machine to another hypervisor, with its memory and what it wrote', async (here, there, context) => {
    const spec = await counting(here.on, here.hypervisor)
    const { id } = spec
    await here.on.write(here.hypervisor, id, SEALED, sector('a'))
    const { layers } = await here.hypervisor.seal(id, 0)
    await here.on.write(here.hypervisor, id, LAST, sector('b'))
    const before = await here.on.count(here.hypervisor, id)
    const target = await there.hypervisor.receive(spec)
    assert.deepEqual(await there.hypervisor.list(), [])
    const arrived = told(there.hypervisor, id)
    const moved = await here.hypervisor.migrateTo(id, target)
    context.diagnostic(
      `stood still for ${moved.downtimeMs.toFixed(0)} ms; ${moved.layerBytes} bytes of layers, ${moved.memoryBytes} of memory`,
    )
    assert.ok(moved.downtimeMs >= 0 && moved.memoryBytes > 0)
    await arrived
    await assert.rejects(here.hypervisor.show(id), { code: 'not-found' })
    assert.equal((await there.hypervisor.show(id)).power, 'running')
    assert.match(Buffer.from(await there.hypervisor.consoleLog(id, 1024 * 1024)).toString('latin1'), /ready/)
    const after = await there.on.count(there.hypervisor, id)
    assert.ok(after >= before, `it went on at ${after}, and was at ${before}`)
    await untilCounted(there.on, there.hypervisor, id, after + 1)
    for (const [offset, fill] of [
      [SEALED, 'a'],
      [LAST, 'b'],
    ] as const) {
      assert.deepEqual(Buffer.from(await there.on.read(there.hypervisor, id, offset, 512)), sector(fill))
    }
    const layer = await there.hypervisor.openLayer(id, 'root', layers.root![0]!)
    assert.deepEqual(Buffer.from(await layer.read(SEALED, 512)), sector('a'))
    await layer.close()
    await saveAll(there.hypervisor, id)
    await assert.rejects(there.hypervisor.launch(spec), { code: 'conflict' })

    await there.hypervisor.migrateTo(id, await here.hypervisor.receive(spec)) // and back
    await untilCounted(here.on, here.hypervisor, id, after + 1)
    await here.hypervisor.stop(id, 0)
    await here.hypervisor.start(id)
    assert.deepEqual(await there.hypervisor.list(), [])
  })

  must('leave paused what is paused', async (here, there) => {
    const spec = await counting(here.on, here.hypervisor)
    await here.hypervisor.pause(spec.id)
    const { downtimeMs } = await here.hypervisor.migrateTo(spec.id, await there.hypervisor.receive(spec))
    assert.equal(downtimeMs, 0)
    assert.equal((await there.hypervisor.show(spec.id)).power, 'paused')
    await there.hypervisor.resume(spec.id)
    await untilCounted(there.on, there.hypervisor, spec.id, 2)
  })

  must('let the machine go on here where the target does not take it', async (here, there) => {
    const spec = await counting(here.on, here.hypervisor)
    const { id } = spec
    const stays = async (what: string) => {
      assert.equal((await here.hypervisor.show(id)).power, 'running', what)
      await untilCounted(here.on, here.hypervisor, id, (await here.on.count(here.hypervisor, id)) + 1)
      assert.deepEqual(await there.hypervisor.list(), [], what)
    }
    const differing: readonly Partial<MachineSpec>[] = [{ cpus: 2 }, { disks: [] }, { memoryBytes: spec.memoryBytes / 2 }]
    for (const changes of differing) {
      const target = await there.hypervisor.receive({ ...spec, ...changes })
      await assert.rejects(here.hypervisor.migrateTo(id, target), { code: 'invalid-request' }, JSON.stringify(changes))
      await stays(JSON.stringify(changes))
      await there.hypervisor.remove(id)
    }
    const withdrawn = await there.hypervisor.receive(spec)
    await there.hypervisor.remove(id)
    await assert.rejects(here.hypervisor.migrateTo(id, withdrawn), { code: 'not-found' })
    const target = await there.hypervisor.receive(spec)
    await assert.rejects(here.hypervisor.migrateTo(id, { ...target, token: target.token.slice(1) }), { code: 'not-found' })
    await assert.rejects(here.hypervisor.migrateTo(id, target, { signal: AbortSignal.abort() }), { code: 'cancelled' })
    await stays('after what could not be')
    await there.hypervisor.close()
    await assert.rejects(here.hypervisor.migrateTo(id, target), { code: 'unavailable' })
    await untilCounted(here.on, here.hypervisor, id, (await here.on.count(here.hypervisor, id)) + 1)
  })

  must('expect a machine once, and not where it is', async (here, there) => {
    const spec = await counting(here.on, here.hypervisor)
    await assert.rejects(here.hypervisor.receive(spec), { code: 'conflict' })
    await assert.rejects(there.hypervisor.receive({ ...spec, cpus: 0 }), { code: 'invalid-request' })
    const target = await there.hypervisor.receive(spec)
    await assert.rejects(there.hypervisor.receive(spec), { code: 'conflict' })
    await assert.rejects(there.hypervisor.launch(spec), { code: 'conflict' })
    await here.hypervisor.migrateTo(spec.id, target)
    const other = await counting(here.on, here.hypervisor)
    await assert.rejects(here.hypervisor.migrateTo(other.id, target), { code: 'not-found' })
    assert.equal((await here.hypervisor.show(other.id)).power, 'running')
  })

  must('say not-found and conflict of what cannot leave', async (here, there) => {
    const spec = here.on.spec()
    const target = await there.hypervisor.receive(spec)
    await assert.rejects(here.hypervisor.migrateTo(randomUUID(), target), { code: 'not-found' })
    await here.hypervisor.launch(spec)
    await here.hypervisor.stop(spec.id, 0)
    await assert.rejects(here.hypervisor.migrateTo(spec.id, target), { code: 'conflict' })
    await here.hypervisor.remove(spec.id)
    await there.hypervisor.remove(spec.id)
    await there.hypervisor.launch(spec)
  })
}

/** Told of, though nobody could have asked before. */
function told(hypervisor: Hypervisor, id: string): Promise<void> {
  return new Promise((settle) => {
    const stop = hypervisor.watch((machine) => {
      if (machine.id !== id || machine.power !== 'running') return
      stop()
      settle()
    })
  })
}
