import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import type { BlockSource } from '../../disk/block/block-source.ts'
import type { LayersHost } from './disk-layers.suite.ts'
import type { DiskLayers } from './disk-layers.ts'
import type { DiskPlugs } from './disk-plugs.ts'
import { untilPrinted } from './hypervisor.suite.ts'
import type { DiskAddress, Hardware, Hypervisor, MachineDisk } from './hypervisor.ts'

/** A store that tells what was done to it. */
export interface TestStore {
  readonly source: BlockSource
  /** How often it was made durable. */
  readonly flushes: () => number
}

export interface PlugsHost extends LayersHost {
  open(): Promise<Hypervisor & DiskLayers & DiskPlugs>
  /** Settles when the guest sees the disk with that serial number, or sees it no more. */
  untilSeen(hypervisor: Hypervisor, id: string, serial: string, isThere: boolean): Promise<void>
  /** An empty one for a disk of that many bytes, or one that holds what the root disk of its machines lies on. */
  makeStore(bytes: number, holds?: BlockSource): Promise<TestStore & { readonly address: DiskAddress }>
  /** To another address; the one before is good no more. */
  moveStore(address: DiskAddress): Promise<DiskAddress>
}

const BYTES = 64 * 1024 * 1024
const FAR = 32 * 1024 * 1024
/** Beyond what the guest's own files take. */
const ROOT_FAR = 512 * 1024 * 1024
const GRACE_MS = 120_000 // a guest under emulation on a busy host
const sector = (fill: string) => Buffer.alloc(512, fill)
const at = async (source: BlockSource, offset: number) => Buffer.from(await source.read(offset, 512))

export function diskPlugsSuite(
  adapter: string,
  host: () => Promise<PlugsHost>,
  options: { readonly skip?: string | false } = {},
) {
  const must = (title: string, check: (on: PlugsHost, hypervisor: Hypervisor & DiskLayers & DiskPlugs) => Promise<void>) =>
    test(`${adapter} must ${title}`, { skip: options.skip ?? false }, async (context) => {
      const on = await host()
      const hypervisor = await on.open()
      context.after(async () => {
        await hypervisor.close()
        await on.close()
      })
      await check(on, hypervisor)
    })
  const booted = async (on: PlugsHost, hypervisor: Hypervisor, hardware: Partial<Hardware> = {}): Promise<string> => {
    const plain = on.spec()
    const spec = on.spec({ hardware: { ...plain.hardware, ...hardware } })
    await hypervisor.launch(spec)
    await untilPrinted(hypervisor, spec.id, 'ready')
    return spec.id
  }
  const data = (disk: Partial<MachineDisk>): MachineDisk => ({ name: 'data', bytes: BYTES, serial: 'the-data', ...disk })

  const kinds: readonly (readonly [string, Partial<Hardware>])[] = [
    ['virtio', {}],
    ['virtio of the newer chipset', { machineType: 'q35' }],
    ['scsi', { diskBus: 'scsi' }],
  ]
  for (const [kind, hardware] of kinds) {
    must(`give a running guest a disk on ${kind} that is written through, and take it back`, async (on, hypervisor) => {
      const id = await booted(on, hypervisor, hardware)
      const { address, source, flushes } = await on.makeStore(BYTES)
      await hypervisor.attach(id, data({ store: address }))
      await on.untilSeen(hypervisor, id, 'the-data', true)
      assert.deepEqual((await hypervisor.show(id)).disks, ['root', 'data'])
      const before = flushes()
      await on.write(hypervisor, id, FAR, sector('a'), 'the-data')
      assert.deepEqual(await at(source, FAR), sector('a'))
      assert.ok(flushes() > before, 'what the guest wants durable is durable')
      assert.deepEqual(Object.keys((await hypervisor.seal(id, 0)).layers), ['root'])

      await hypervisor.detach(id, 'data', GRACE_MS)
      await on.untilSeen(hypervisor, id, 'the-data', false)
      assert.deepEqual((await hypervisor.show(id)).disks, ['root'])
      await hypervisor.detach(id, 'data', GRACE_MS)
      await hypervisor.attach(id, data({ store: await on.moveStore(address) }))
      await on.untilSeen(hypervisor, id, 'the-data', true)
      assert.deepEqual(Buffer.from(await on.read(hypervisor, id, FAR, 512, 'the-data')), sector('a'))
    })
  }

  must('attach to a machine that is off, and keep it from start to start wherever its store is', async (on, hypervisor) => {
    const id = await booted(on, hypervisor)
    await hypervisor.stop(id, 0)
    const { address, source } = await on.makeStore(BYTES)
    await hypervisor.attach(id, data({ store: address }))
    const moved = await on.moveStore(address)
    await hypervisor.start(id, { addresses: { data: moved } })
    await untilPrinted(hypervisor, id, 'ready', 2)
    await on.write(hypervisor, id, FAR, sector('a'), 'the-data')
    assert.deepEqual(await at(source, FAR), sector('a'))
    await hypervisor.stop(id, 0)
    await hypervisor.start(id)
    await untilPrinted(hypervisor, id, 'ready', 3)
    assert.deepEqual(Buffer.from(await on.read(hypervisor, id, FAR, 512, 'the-data')), sector('a'))
    await hypervisor.stop(id, 0)
    await hypervisor.detach(id, 'data', GRACE_MS)
    await hypervisor.start(id)
    await untilPrinted(hypervisor, id, 'ready', 4)
    await on.untilSeen(hypervisor, id, 'the-data', false)
  })

  must('attach disks of its own, which are sealed with the others and gone when they are detached', async (on, hypervisor) => {
    const id = await booted(on, hypervisor)
    await hypervisor.attach(id, data({}))
    await hypervisor.attach(id, data({ name: 'more', serial: 'more' }))
    await on.untilSeen(hypervisor, id, 'the-data', true)
    await on.untilSeen(hypervisor, id, 'more', true)
    await on.write(hypervisor, id, FAR, sector('a'), 'the-data')
    const { layers } = await hypervisor.seal(id, 0)
    assert.deepEqual(Object.keys(layers).sort(), ['data', 'more', 'root'])
    const layer = await hypervisor.openLayer(id, 'data', layers.data![0]!)
    assert.deepEqual(await at(layer, FAR), sector('a'))
    await layer.close()

    await hypervisor.detach(id, 'data', GRACE_MS)
    await on.untilSeen(hypervisor, id, 'the-data', false)
    await assert.rejects(hypervisor.openLayer(id, 'data', layers.data![0]!), { code: 'not-found' })
    await on.write(hypervisor, id, FAR, sector('b'), 'more')
    await hypervisor.attach(id, data({}))
    await on.untilSeen(hypervisor, id, 'the-data', true)
    assert.deepEqual(Buffer.from(await on.read(hypervisor, id, FAR, 512, 'the-data')), Buffer.alloc(512))
    assert.deepEqual(Buffer.from(await on.read(hypervisor, id, FAR, 512, 'more')), sector('b'))
    assert.deepEqual(Object.keys((await hypervisor.seal(id, 0)).layers).sort(), ['data', 'more', 'root'])
  })

  must('start a guest from a root disk that is written through', async (on, hypervisor) => {
    const bytes = on.spec().disks[0]!.bytes
    const { address, source } = await on.makeStore(bytes, await on.openBase())
    const spec = on.spec({ disks: [{ name: 'root', bytes, serial: 'the-root', store: address }, data({})] })
    await hypervisor.launch(spec)
    await untilPrinted(hypervisor, spec.id, 'ready')
    await on.write(hypervisor, spec.id, FAR, sector('a'), 'the-root')
    assert.deepEqual(await at(source, FAR), sector('a'))
    assert.deepEqual(Object.keys((await hypervisor.seal(spec.id, 0)).layers), ['data'])
    await assert.rejects(hypervisor.rebase(spec.id, { root: { base: address, through: 0 } }), { code: 'not-found' })
    await assert.rejects(hypervisor.hydrate(spec.id, 'root'), { code: 'conflict' })
    assert.equal((await hypervisor.show(spec.id)).power, 'running')
  })

  must(
    'seal its layers and let the caller seal its stores at one moment, for which the guest stands still',
    async (on, hypervisor) => {
      const id = await booted(on, hypervisor)
      const { address, source } = await on.makeStore(BYTES)
      await hypervisor.attach(id, data({ store: address }))
      await on.untilSeen(hypervisor, id, 'the-data', true)
      await on.write(hypervisor, id, FAR, sector('a'), 'the-data')
      await on.write(hypervisor, id, ROOT_FAR, sector('a'))
      const inStore: Buffer[] = []
      const { layers } = await hypervisor.seal(id, 0, { whileStill: async () => void inStore.push(await at(source, FAR)) })
      assert.deepEqual(inStore, [sector('a')])
      const layer = await hypervisor.openLayer(id, 'root', layers.root!.at(-1)!)
      assert.deepEqual(await at(layer, ROOT_FAR), sector('a'))
      await layer.close()
      const failing = hypervisor.seal(id, 0, { whileStill: () => Promise.reject(new Error('no room')) })
      await assert.rejects(failing, { message: 'no room' })
      assert.equal((await hypervisor.show(id)).power, 'running')
      await on.write(hypervisor, id, FAR, sector('b'), 'the-data')
      assert.deepEqual(await at(source, FAR), sector('b'))

      await hypervisor.stop(id, 0)
      await hypervisor.seal(id, 0, { whileStill: async () => void inStore.push(await at(source, FAR)) })
      assert.deepEqual(inStore, [sector('a'), sector('b')])
    },
  )

  must('say what cannot be attached, and leave the machine as it was', async (on, hypervisor) => {
    const id = await booted(on, hypervisor)
    const { address } = await on.makeStore(BYTES)
    await assert.rejects(hypervisor.attach(randomUUID(), data({})), { code: 'not-found' })
    await assert.rejects(hypervisor.detach(randomUUID(), 'data', 0), { code: 'not-found' })
    await assert.rejects(hypervisor.attach(id, data({ name: 'root' })), { code: 'conflict' })
    for (const [what, disk] of [
      ['half a sector', { bytes: 700 }],
      ['a name that is a path', { name: '../x' }],
      ['a base and a store', { base: address, store: address }],
      ['a store beside the point', { store: { ...address, socketPath: 'x' } }],
    ] as const) {
      await assert.rejects(hypervisor.attach(id, data(disk)), { code: 'invalid-request' }, what)
    }
    for (let index = 1; index < 16; index += 1) await hypervisor.attach(id, data({ name: `d${index}`, bytes: 512, serial: '' }))
    await assert.rejects(hypervisor.attach(id, data({})), { code: 'invalid-request' })
    await hypervisor.detach(id, 'd7', GRACE_MS)
    await hypervisor.attach(id, data({}))
    await on.untilSeen(hypervisor, id, 'the-data', true)
  })

  must('attach to a bus without hot plug only while the machine is off', async (on, hypervisor) => {
    const id = await booted(on, hypervisor, { diskBus: 'ide' })
    await assert.rejects(hypervisor.attach(id, data({})), { code: 'conflict' })
    await assert.rejects(hypervisor.detach(id, 'root', GRACE_MS), { code: 'conflict' })
    await hypervisor.stop(id, 0)
    await hypervisor.attach(id, data({}))
    await hypervisor.start(id)
    await untilPrinted(hypervisor, id, 'ready', 2)
    await assert.rejects(hypervisor.detach(id, 'data', GRACE_MS), { code: 'conflict' })
    await hypervisor.stop(id, 0)
    await hypervisor.detach(id, 'data', GRACE_MS)
    await hypervisor.start(id)
    await untilPrinted(hypervisor, id, 'ready', 3)
  })

  must('leave a disk attached of which the guest does not let go', async (on, hypervisor) => {
    const spec = on.deafSpec()
    await hypervisor.launch(spec)
    await hypervisor.attach(spec.id, data({}))
    await assert.rejects(hypervisor.detach(spec.id, 'data', 1), { code: 'conflict' })
    assert.deepEqual(Object.keys((await hypervisor.seal(spec.id, 0)).layers), ['data'])
    await hypervisor.stop(spec.id, 0)
    await hypervisor.detach(spec.id, 'data', 1)
    assert.deepEqual((await hypervisor.seal(spec.id, 0)).layers, {})
  })
}
