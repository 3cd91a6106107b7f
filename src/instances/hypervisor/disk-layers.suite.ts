import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import type { BlockSource } from '../../disk/block/block-source.ts'
import type { DiskLayers } from './disk-layers.ts'
import { type TestHost, untilPrinted } from './hypervisor.suite.ts'
import type { Hypervisor } from './hypervisor.ts'

/** A host whose guests write to their root disk when they are told. */
export interface LayersHost extends TestHost {
  open(): Promise<Hypervisor & DiskLayers>
  /** Durable when it settles. @param offset, and the length of `bytes`: multiples of 512 */
  write(hypervisor: Hypervisor, id: string, offset: number, bytes: Uint8Array): Promise<void>
  /** What the guest reads there. */
  read(hypervisor: Hypervisor, id: string, offset: number, length: number): Promise<Uint8Array>
}

const CLUSTER = 65_536
/** Far from where the guest's own files are. */
const [FIRST, SECOND, THIRD] = [512 * 1024 * 1024, 600 * 1024 * 1024, 700 * 1024 * 1024] as const
const sector = (fill: string) => Buffer.alloc(512, fill)

async function isHole(layer: BlockSource, offset: number): Promise<boolean> {
  for await (const extent of layer.extents(offset, CLUSTER)) if (extent.kind !== 'hole') return false
  return true
}
const at = async (layer: BlockSource, offset: number) => Buffer.from(await layer.read(offset, 512))

export function diskLayersSuite(
  adapter: string,
  host: () => Promise<LayersHost>,
  options: { readonly skip?: string | false } = {},
) {
  const must = (title: string, check: (on: LayersHost, hypervisor: Hypervisor & DiskLayers) => Promise<void>) =>
    test(`${adapter} must ${title}`, { skip: options.skip ?? false }, async (context) => {
      const on = await host()
      const hypervisor = await on.open()
      context.after(async () => {
        await hypervisor.close()
        await on.close()
      })
      await check(on, hypervisor)
    })

  must('seal what was written, while the guest goes on writing above it', async (on, hypervisor) => {
    const spec = on.spec()
    await hypervisor.launch(spec)
    await untilPrinted(hypervisor, spec.id, 'ready')
    await on.write(hypervisor, spec.id, FIRST, sector('a'))
    const first = (await hypervisor.seal(spec.id, 0)).layers
    assert.deepEqual(Object.keys(first), ['root'])
    assert.equal(first.root!.length, 1)
    assert.equal((await hypervisor.show(spec.id)).power, 'running')

    await on.write(hypervisor, spec.id, FIRST, sector('A'))
    await on.write(hypervisor, spec.id, SECOND, sector('b'))
    const second = (await hypervisor.seal(spec.id, 0)).layers
    assert.deepEqual(second.root!.slice(0, 1), first.root)
    await on.write(hypervisor, spec.id, THIRD, sector('c'))

    const [low, high] = await Promise.all(second.root!.map((layer) => hypervisor.openLayer(spec.id, 'root', layer)))
    assert.equal(low!.size, spec.disks[0]!.bytes)
    assert.deepEqual(
      [await at(low!, FIRST), await at(high!, FIRST), await at(high!, SECOND)],
      [sector('a'), sector('A'), sector('b')],
    )
    assert.deepEqual([await isHole(low!, SECOND), await isHole(low!, THIRD), await isHole(high!, THIRD)], [true, true, true])
    await Promise.all([low!.close(), high!.close()])
    for (const [offset, fill] of [
      [FIRST, 'A'],
      [SECOND, 'b'],
      [THIRD, 'c'],
    ] as const) {
      assert.deepEqual(Buffer.from(await on.read(hypervisor, spec.id, offset, 512)), sector(fill))
    }
  })

  must('keep all layers over a stop, a start and another service', async (on, hypervisor) => {
    const spec = on.spec()
    await hypervisor.launch(spec)
    await untilPrinted(hypervisor, spec.id, 'ready')
    await on.write(hypervisor, spec.id, FIRST, sector('a'))
    await hypervisor.seal(spec.id, 0)
    await on.write(hypervisor, spec.id, SECOND, sector('b'))
    await hypervisor.stop(spec.id, 0)
    const sealed = (await hypervisor.seal(spec.id, 0)).layers // off
    assert.equal(sealed.root!.length, 2)
    await hypervisor.start(spec.id)
    await untilPrinted(hypervisor, spec.id, 'ready', 2)
    await hypervisor.close()

    const again = await on.open()
    try {
      assert.deepEqual(Buffer.from(await on.read(again, spec.id, FIRST, 512)), sector('a'))
      assert.deepEqual(Buffer.from(await on.read(again, spec.id, SECOND, 512)), sector('b'))
      assert.equal((await again.seal(spec.id, 0)).layers.root!.length, 3)
      const low = await again.openLayer(spec.id, 'root', sealed.root![0]!)
      assert.deepEqual([await at(low, FIRST), await isHole(low, SECOND)], [sector('a'), true])
      await low.close()
    } finally {
      await again.close()
    }
  })

  must(
    'say not-found of machines, disks and layers that are not there, and of the one that is written to',
    async (on, hypervisor) => {
      await assert.rejects(hypervisor.seal(randomUUID(), 0), { code: 'not-found' })
      await assert.rejects(hypervisor.openLayer(randomUUID(), 'root', 0), { code: 'not-found' })
      const spec = on.deafSpec()
      await hypervisor.launch(spec)
      assert.deepEqual((await hypervisor.seal(spec.id, 0)).layers, {})
      const withDisk = on.spec()
      await hypervisor.launch(withDisk)
      for (const layer of [0, 1, -1, 0.5]) {
        await assert.rejects(hypervisor.openLayer(withDisk.id, 'root', layer), { code: 'not-found' }, String(layer))
      }
      const { root = [] } = (await hypervisor.seal(withDisk.id, 0)).layers
      await assert.rejects(hypervisor.openLayer(withDisk.id, '../root', root[0]!), { code: 'not-found' })
      await assert.rejects(hypervisor.openLayer(withDisk.id, 'root', root[0]! + 1), { code: 'not-found' })
    },
  )

  must('seal one after the other when many ask at once, up to what a disk may have', async (on, hypervisor) => {
    const spec = on.spec()
    await hypervisor.launch(spec)
    const many = await Promise.all(Array.from({ length: 5 }, () => hypervisor.seal(spec.id, 0)))
    assert.deepEqual(many.map(({ layers }) => layers.root!.length).sort(), [1, 2, 3, 4, 5])
    let refused: unknown = null
    for (let round = 0; round < 100 && refused === null; round += 1) {
      refused = await hypervisor.seal(spec.id, 0).then(
        () => null,
        (error) => error,
      )
    }
    assert.equal((refused as { code?: string } | null)?.code, 'too-large')
    assert.equal((await hypervisor.show(spec.id)).power, 'running')
  })
}
