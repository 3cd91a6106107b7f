import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type LayersHost, stacked } from './disk-layers.suite.ts'
import type { DiskLayers } from './disk-layers.ts'
import { untilPrinted } from './hypervisor.suite.ts'
import type { Hypervisor, MachineSpec } from './hypervisor.ts'
import type { MachineMemory, MemoryState, SavedMemory } from './machine-memory.ts'

/** A host whose guests count for themselves, in their memory, and begin anew when they start. */
export interface MemoryHostOfTests extends LayersHost {
  open(): Promise<Hypervisor & DiskLayers & MachineMemory>
  startCounting(hypervisor: Hypervisor, id: string): Promise<void>
  /** How far it has come; 0 where it does not count. */
  count(hypervisor: Hypervisor, id: string): Promise<number>
}

const LOOK_AGAIN_MS = 20
/** From where the guest's own files are. */
const FAR = 512 * 1024 * 1024

export interface Collected extends SavedMemory {
  readonly stream: Uint8Array
}

export async function saveAll(hypervisor: MachineMemory, id: string): Promise<Collected> {
  const parts: Uint8Array[] = []
  const saved = await hypervisor.saveMemory(id, async (body) => {
    for await (const part of body) parts.push(part)
  })
  return { ...saved, stream: Buffer.concat(parts) }
}

export const memoryOf = ({ shape, seedDisc, stream }: Collected): MemoryState => ({
  shape,
  seedDisc,
  open: async function* () {
    for (let at = 0; at < stream.length; at += 65_536) yield stream.subarray(at, at + 65_536)
  },
})

export function machineMemorySuite(
  adapter: string,
  host: () => Promise<MemoryHostOfTests>,
  options: { readonly skip?: string | false } = {},
) {
  type Opened = Awaited<ReturnType<MemoryHostOfTests['open']>>
  const must = (title: string, check: (on: MemoryHostOfTests, hypervisor: Opened, context: TestContext) => Promise<void>) =>
    test(`${adapter} must ${title}`, { skip: options.skip ?? false }, async (context) => {
      const on = await host()
      const hypervisor = await on.open()
      context.after(async () => {
        await hypervisor.close()
        await on.close()
      })
      await check(on, hypervisor, context)
    })

  must('save memory and disks of one moment, and let the guest go on', async (on, hypervisor) => {
    const { id } = await counting(on, hypervisor)
    const seen: string[] = []
    const stop = hypervisor.watch(({ power }) => seen.push(power))
    const before = await on.count(hypervisor, id)
    const saved = await saveAll(hypervisor, id)
    stop()
    assert.deepEqual(seen, [], 'nobody need know')
    assert.ok(saved.stream.length > 0 && saved.pausedMs >= 0)
    assert.equal(saved.layers.root?.length, 1)
    assert.equal((await hypervisor.show(id)).power, 'running')
    await untilCounted(on, hypervisor, id, before + 1)
    const again = await saveAll(hypervisor, id)
    assert.equal(again.layers.root?.length, 2)
    assert.equal(again.shape, saved.shape)
  })

  must('go on from the memory in another machine, however the first one fares', async (on, hypervisor) => {
    const spec = await counting(on, hypervisor)
    await on.write(hypervisor, spec.id, FAR, Buffer.alloc(512, 'a'))
    const before = await on.count(hypervisor, spec.id)
    const saved = await saveAll(hypervisor, spec.id)
    await on.write(hypervisor, spec.id, FAR, Buffer.alloc(512, 'b'))
    const copy = await copyOf(on, hypervisor, spec, saved)
    await hypervisor.remove(spec.id)
    await hypervisor.launch({ ...copy, memory: memoryOf(saved) })
    assert.equal((await hypervisor.show(copy.id)).power, 'running')
    const after = await on.count(hypervisor, copy.id)
    assert.ok(after >= before, `it went on at ${after}, and was at ${before}`)
    await untilCounted(on, hypervisor, copy.id, after + 1)
    assert.deepEqual(Buffer.from(await on.read(hypervisor, copy.id, FAR, 512)), Buffer.alloc(512, 'a'))
    await hypervisor.reboot(copy.id, 0)
    await untilPrinted(hypervisor, copy.id, 'ready')
    assert.equal(await on.count(hypervisor, copy.id), 0, 'it starts anew from its disks')
    const next = await saveAll(hypervisor, copy.id)
    assert.equal(next.shape, saved.shape)
  })

  must('go back in place', async (on, hypervisor) => {
    const { id } = await counting(on, hypervisor)
    const saved = await saveAll(hypervisor, id)
    await assert.rejects(hypervisor.start(id, { memory: memoryOf(saved) }), { code: 'conflict' })
    await hypervisor.stop(id, 0)
    await hypervisor.start(id, { memory: memoryOf(saved) })
    const count = await on.count(hypervisor, id)
    assert.ok(count > 0)
    await hypervisor.stop(id, 0)
    await hypervisor.start(id)
    await untilPrinted(hypervisor, id, 'ready', 2)
    assert.equal(await on.count(hypervisor, id), 0, 'a start without memory is a start')
  })

  must('refuse memory that is of a machine that differs, and say how', async (on, hypervisor) => {
    const spec = await counting(on, hypervisor)
    const saved = await saveAll(hypervisor, spec.id)
    const copy = await copyOf(on, hypervisor, spec, saved)
    const memory = memoryOf(saved)
    const differing: readonly (readonly [Partial<MachineSpec>, RegExp])[] = [
      [{ cpus: 2, memory }, /cpus was 1 and is 2/],
      [{ memoryBytes: spec.memoryBytes * 2, memory }, /memoryBytes/],
      [{ disks: [...copy.disks, { name: 'more', bytes: 512, serial: '' }], memory }, /diskBytes\.1 was nothing and is 512/],
      [{ networks: [{ mac: '52:54:00:12:34:56', forwards: [] }], memory }, /52:54:00:12:34:56/],
      [{ hardware: { ...spec.hardware, randomness: !spec.hardware.randomness }, memory }, /random|rng/],
      [{ memory: { ...memory, shape: saved.shape.replace('"format":1', '"format":2') } }, /format was 2 and is 1/],
      [{ memory: { ...memory, shape: '' } }, /cannot be read/],
      [{ memory: { ...memory, shape: '[]' } }, /cannot be read/],
      [{ memory, seed: { metaData: '', userData: new Uint8Array(), networkConfig: null, vendorData: null } }, /seed/],
    ]
    for (const [changes, message] of differing) {
      await assert.rejects(hypervisor.launch({ ...copy, ...changes }), { code: 'invalid-request', message }, String(message))
      await assert.rejects(hypervisor.assertResumable({ ...copy, ...changes }), { code: 'invalid-request', message })
    }
    const disks = copy.disks.map(({ name, bytes, serial }) => ({ name, bytes, serial }))
    await hypervisor.assertResumable({ ...copy, id: spec.id, disks, memory }) // of one that is there, wherever its disks are
    assert.deepEqual(
      (await hypervisor.list()).map(({ id }) => id),
      [spec.id],
    )
    await hypervisor.stop(spec.id, 0)
    const other = { ...memory, shape: saved.shape.replace('"cpus":1', '"cpus":3') }
    await assert.rejects(hypervisor.start(spec.id, { memory: other }), {
      code: 'invalid-request',
      message: /cpus was 3 and is 1/,
    })
    assert.equal((await hypervisor.show(spec.id)).power, 'shutdown')
  })

  must('leave nothing of a launch, and a machine as it was, where the memory does not come', async (on, hypervisor) => {
    const spec = await counting(on, hypervisor)
    const saved = await saveAll(hypervisor, spec.id)
    const copy = await copyOf(on, hypervisor, spec, saved)
    await hypervisor.stop(spec.id, 0)
    const memory = memoryOf(saved)
    const half = saved.stream.subarray(0, saved.stream.length >> 1)
    const lost = new Error('the store is gone')
    const broken = async function* () {
      yield half
      throw lost
    }
    const cut = new AbortController()
    const stuck = async function* (signal: AbortSignal) {
      yield half
      cut.abort()
      signal.throwIfAborted()
    }
    const failing: readonly (readonly [MemoryState['open'], AbortSignal | undefined, object])[] = [
      [broken, undefined, lost],
      [memoryOf({ ...saved, stream: half }).open, undefined, { code: 'unavailable' }],
      [memoryOf({ ...saved, stream: new Uint8Array() }).open, undefined, { code: 'unavailable' }],
      [stuck, cut.signal, { code: 'cancelled' }],
    ]
    for (const [open, signal, error] of failing) {
      await assert.rejects(hypervisor.start(spec.id, { memory: { ...memory, open } }, signal), error)
      assert.equal((await hypervisor.show(spec.id)).power, 'shutdown')
      await assert.rejects(hypervisor.launch({ ...copy, memory: { ...memory, open } }, signal), error)
    }
    assert.equal((await hypervisor.list()).length, 1)
    await hypervisor.start(spec.id, { memory })
    assert.ok((await on.count(hypervisor, spec.id)) > 0)
  })

  must('let the guest go on where its memory finds no room, or nobody waits for it', async (on, hypervisor) => {
    const { id } = await counting(on, hypervisor)
    const full = new Error('no room')
    const cut = new AbortController()
    const sinks: readonly (readonly [Parameters<MachineMemory['saveMemory']>[1], object])[] = [
      [() => Promise.reject(full), full],
      [
        async (body) => {
          for await (const _ of body) throw full
        },
        full,
      ],
      [
        async (body) => {
          for await (const _ of body);
          throw full
        },
        full,
      ],
      [
        async (body) => {
          for await (const _ of body) cut.abort()
        },
        { code: 'cancelled' },
      ],
      [() => assert.fail('nothing is to be had after that'), { code: 'cancelled' }],
    ]
    for (const [index, [sink, error]] of sinks.entries()) {
      const before = await on.count(hypervisor, id)
      const options = index >= 3 ? { signal: cut.signal } : {}
      await assert.rejects(hypervisor.saveMemory(id, sink, options), error, `sink ${index}`)
      assert.equal((await hypervisor.show(id)).power, 'running')
      await untilCounted(on, hypervisor, id, before + 1)
    }
    assert.ok((await saveAll(hypervisor, id)).stream.length > 0)
  })

  must('have done what is to be of the same moment, and fail where that fails', async (on, hypervisor) => {
    const { id } = await counting(on, hypervisor)
    const skip = async (body: AsyncIterable<Uint8Array>) => {
      for await (const _ of body);
    }
    const powers: string[] = []
    const whileStill = async () => {
      powers.push((await hypervisor.show(id)).power)
    }
    await hypervisor.saveMemory(id, skip, { whileStill })
    assert.deepEqual(powers, ['running'], 'once, and nobody need know that it stands still')
    const broken = new Error('the store cannot be sealed')
    await assert.rejects(hypervisor.saveMemory(id, skip, { whileStill: () => Promise.reject(broken) }), broken)
    await untilCounted(on, hypervisor, id, (await on.count(hypervisor, id)) + 1)
  })

  must('save what is paused, and leave it so', async (on, hypervisor) => {
    const spec = await counting(on, hypervisor)
    await hypervisor.pause(spec.id)
    const saved = await saveAll(hypervisor, spec.id)
    assert.equal(saved.pausedMs, 0)
    assert.equal((await hypervisor.show(spec.id)).power, 'paused')
    await saveAll(hypervisor, spec.id)
    await hypervisor.seal(spec.id, 0)
    await hypervisor.resume(spec.id)
    await untilCounted(on, hypervisor, spec.id, 1)
    const copy = await copyOf(on, hypervisor, spec, saved)
    await hypervisor.launch({ ...copy, memory: memoryOf(saved) })
    assert.ok((await on.count(hypervisor, copy.id)) > 0, 'it runs')
  })

  must('have those wait who would pause or seal meanwhile, and not those who stop', async (on, hypervisor) => {
    const { id } = await counting(on, hypervisor)
    const [saved, sealed] = await Promise.all([saveAll(hypervisor, id), hypervisor.seal(id, 0), hypervisor.pause(id)])
    assert.ok(saved.layers.root!.length < sealed.layers.root!.length)
    assert.equal((await hypervisor.show(id)).power, 'paused')
    await hypervisor.resume(id)
    const begun = Promise.withResolvers<void>()
    const lost = assert.rejects(
      hypervisor.saveMemory(id, async (body) => {
        for await (const _ of body) {
          begun.resolve()
          await hypervisor.stop(id, 0)
        }
      }),
      { code: /unavailable|conflict/ },
    )
    await begun.promise
    await lost
    assert.equal((await hypervisor.show(id)).power, 'shutdown')
    await hypervisor.start(id)
  })

  must('say not-found and conflict where there is no memory to save', async (on, hypervisor) => {
    const never = async () => assert.fail('there is nothing to take')
    await assert.rejects(hypervisor.saveMemory(randomUUID(), never), { code: 'not-found' })
    const spec = on.spec()
    await hypervisor.launch(spec)
    await hypervisor.stop(spec.id, 0)
    await assert.rejects(hypervisor.saveMemory(spec.id, never), { code: 'conflict' })
  })
}

/** Another machine of that kind, its disk as it was when its layers were sealed. */
export async function copyOf(
  on: LayersHost,
  hypervisor: DiskLayers,
  spec: MachineSpec,
  { layers }: SavedMemory,
): Promise<MachineSpec> {
  const opened = await Promise.all((layers.root ?? []).map((layer) => hypervisor.openLayer(spec.id, 'root', layer)))
  const base = await on.lend(stacked([await on.openBase(), ...opened]))
  return { ...spec, id: randomUUID(), disks: [{ ...spec.disks[0]!, base }] }
}

export async function counting(
  on: MemoryHostOfTests,
  hypervisor: Hypervisor,
  changes: Partial<MachineSpec> = {},
): Promise<MachineSpec> {
  const spec = on.spec(changes)
  await hypervisor.launch(spec)
  await untilPrinted(hypervisor, spec.id, 'ready')
  await on.startCounting(hypervisor, spec.id)
  await untilCounted(on, hypervisor, spec.id, 1)
  return spec
}

export async function untilCounted(on: MemoryHostOfTests, hypervisor: Hypervisor, id: string, least: number): Promise<void> {
  while ((await on.count(hypervisor, id)) < least) await pause(LOOK_AGAIN_MS)
}
