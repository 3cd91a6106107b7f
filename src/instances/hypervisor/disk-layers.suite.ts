import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { test } from 'node:test'
import type { BlockSource } from '../../disk/block/block-source.ts'
import type { DiskLayers } from './disk-layers.ts'
import { type TestHost, untilPrinted } from './hypervisor.suite.ts'
import type { DiskAddress, Hypervisor, MachineSpec } from './hypervisor.ts'

/** A host whose guests write to their root disk when they are told. */
export interface LayersHost extends TestHost {
  open(): Promise<Hypervisor & DiskLayers>
  /**
   * To the root disk, or to the one with that serial number. Durable when it settles.
   * @param offset, and the length of `bytes`: multiples of 512
   */
  write(hypervisor: Hypervisor, id: string, offset: number, bytes: Uint8Array, serial?: string): Promise<void>
  /** What its disk reads there, as the guest finds when it has forgotten what it read before. */
  read(hypervisor: Hypervisor, id: string, offset: number, length: number, serial?: string): Promise<Uint8Array>
  /** What the root disk of its machines lies on. The caller closes it. */
  openBase(): Promise<BlockSource>
  /** The source, which becomes the host's, as a base for a disk. */
  lend(disk: BlockSource): Promise<DiskAddress>
  /** Nothing is read from there any more. */
  endLoan(base: DiskAddress): Promise<void>
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

/** A disk as the sources hold it together, each above the one before it. It closes them. */
export const stacked = (sources: readonly BlockSource[]): BlockSource => ({
  size: Math.max(...sources.map(({ size }) => size)),
  async read(offset, length) {
    const answer = Buffer.alloc(length)
    for (const source of sources) {
      const known = Math.min(length, source.size - offset)
      if (known <= 0) continue
      for await (const extent of source.extents(offset, known)) {
        if (extent.kind === 'hole' && source !== sources[0]) continue
        answer.set(await source.read(extent.offset, extent.length), extent.offset - offset)
      }
    }
    return answer
  },
  async *extents(offset, length) {
    yield { offset, length, kind: 'data' }
  },
  async close() {
    for (const source of sources) await source.close()
  },
})

/** The disk as it was when the last of these layers was sealed. */
async function asSealed(on: LayersHost, hypervisor: DiskLayers, id: string, layers: readonly number[]): Promise<BlockSource> {
  const base = await on.openBase()
  return stacked([base, ...(await Promise.all(layers.map((layer) => hypervisor.openLayer(id, 'root', layer))))])
}

/** Once begun, reads of the source wait until the signal: whoever copies it cannot be done before. */
function heldUntil(signal: AbortSignal, of: BlockSource): { readonly source: BlockSource; begin(): void } {
  const aborted = once(signal, 'abort')
  let isHeld = false
  const read: BlockSource['read'] = async (offset, length, into) => {
    if (isHeld) await aborted
    return of.read(offset, length, into)
  }
  return {
    source: { size: of.size, read, extents: (offset, length) => of.extents(offset, length), close: () => of.close() },
    begin: () => {
      isHeld = true
    },
  }
}

async function launched(on: LayersHost, hypervisor: Hypervisor): Promise<MachineSpec> {
  const spec = on.spec()
  await hypervisor.launch(spec)
  return spec
}

/** A guest that has written `a`, been sealed, and written `b`: it goes on from there. */
async function sealedOnce(on: LayersHost, hypervisor: Hypervisor & DiskLayers): Promise<string> {
  const spec = on.spec()
  await hypervisor.launch(spec)
  await untilPrinted(hypervisor, spec.id, 'ready')
  await on.write(hypervisor, spec.id, FIRST, sector('a'))
  await hypervisor.seal(spec.id, 0)
  await on.write(hypervisor, spec.id, SECOND, sector('b'))
  return spec.id
}

async function assertHolds(on: LayersHost, hypervisor: Hypervisor, id: string, offset: number, fill: string): Promise<void> {
  assert.deepEqual(Buffer.from(await on.read(hypervisor, id, offset, 512)), sector(fill), `${fill} at ${offset}`)
}

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

  must('put a running disk on a base that holds its sealed layers, over and over', async (on, hypervisor) => {
    const id = await sealedOnce(on, hypervisor)
    const first = await asSealed(on, hypervisor, id, [0])
    const firstBase = await on.lend(first)
    await hypervisor.rebase(id, { root: { base: firstBase, through: 0 } })
    assert.equal((await hypervisor.show(id)).power, 'running')
    await assertHolds(on, hypervisor, id, FIRST, 'a')
    await assertHolds(on, hypervisor, id, SECOND, 'b')
    await assert.rejects(hypervisor.openLayer(id, 'root', 0), { code: 'not-found' })

    await on.write(hypervisor, id, THIRD, sector('c'))
    await hypervisor.seal(id, 0)
    await on.write(hypervisor, id, FIRST, sector('A'))
    assert.deepEqual((await hypervisor.seal(id, 0)).layers.root, [1, 2])
    const second = stacked([first, await hypervisor.openLayer(id, 'root', 1)])
    await hypervisor.rebase(id, { root: { base: await on.lend(second), through: 1 } })
    await on.endLoan(firstBase)
    await assertHolds(on, hypervisor, id, FIRST, 'A')
    await assertHolds(on, hypervisor, id, SECOND, 'b')
    await assertHolds(on, hypervisor, id, THIRD, 'c')
    await hypervisor.stop(id, 0)
    await hypervisor.start(id)
    await untilPrinted(hypervisor, id, 'ready', 2)
    await assertHolds(on, hypervisor, id, FIRST, 'A')
    await assertHolds(on, hypervisor, id, THIRD, 'c')
  })

  must('rebase a machine that is paused, and one that is off, and do again what was done', async (on, hypervisor) => {
    const id = await sealedOnce(on, hypervisor)
    await hypervisor.pause(id)
    const first = await asSealed(on, hypervisor, id, [0])
    await hypervisor.rebase(id, { root: { base: await on.lend(first), through: 0 } })
    await hypervisor.rebase(id, { root: { base: await on.lend(first), through: 0 } })
    assert.equal((await hypervisor.show(id)).power, 'paused')
    await hypervisor.resume(id)
    await assertHolds(on, hypervisor, id, FIRST, 'a')

    await on.write(hypervisor, id, THIRD, sector('c'))
    await hypervisor.stop(id, 0)
    await hypervisor.seal(id, 0)
    const second = stacked([first, await hypervisor.openLayer(id, 'root', 1)])
    await hypervisor.rebase(id, { root: { base: await on.lend(second), through: 1 } })
    await hypervisor.rebase(id, { root: { base: await on.lend(second), through: 1 } })
    assert.equal((await hypervisor.show(id)).power, 'shutdown')
    await hypervisor.start(id)
    await untilPrinted(hypervisor, id, 'ready', 2)
    for (const [offset, fill] of [
      [FIRST, 'a'],
      [SECOND, 'b'],
      [THIRD, 'c'],
    ] as const) {
      await assertHolds(on, hypervisor, id, offset, fill)
    }
  })

  must('rebase nothing onto what is not there, or over layers that are not sealed', async (on, hypervisor) => {
    const id = await sealedOnce(on, hypervisor)
    const base = await on.lend(await asSealed(on, hypervisor, id, [0]))
    await assert.rejects(hypervisor.rebase(randomUUID(), {}), { code: 'not-found' })
    await assert.rejects(hypervisor.rebase(id, { other: { base, through: 0 } }), { code: 'not-found' })
    for (const through of [-1, 0.5, 1, 2]) {
      await assert.rejects(hypervisor.rebase(id, { root: { base, through } }), { code: 'not-found' }, String(through))
    }
    await assert.rejects(hypervisor.rebase(id, { root: { base: { ...base, socketPath: 'x' }, through: 0 } }), {
      code: 'invalid-request',
    })
    await (await hypervisor.openLayer(id, 'root', 0)).close()
    await assertHolds(on, hypervisor, id, FIRST, 'a')
  })

  must('make a running disk whole, so that it needs no base', async (on, hypervisor) => {
    const id = await sealedOnce(on, hypervisor)
    const mayEnd = new AbortController()
    const held = heldUntil(mayEnd.signal, await asSealed(on, hypervisor, id, [0]))
    const base = await on.lend(held.source)
    await hypervisor.rebase(id, { root: { base, through: 0 } })
    const [sealed = 0] = (await hypervisor.seal(id, 0)).layers.root!
    held.begin()
    const copied: number[] = []
    const begun = Promise.withResolvers<void>()
    const hydrated = hypervisor.hydrate(id, 'root', {
      onProgress({ doneBytes, totalBytes }) {
        copied.push(doneBytes / totalBytes)
        begun.resolve()
      },
    })
    await begun.promise
    await assert.rejects(hypervisor.seal(id, 0), { code: 'conflict' })
    await assert.rejects(hypervisor.rebase(id, {}), { code: 'conflict' })
    await assert.rejects(hypervisor.hydrate(id, 'root'), { code: 'conflict' })
    mayEnd.abort()
    await Promise.all([hydrated, on.write(hypervisor, id, THIRD, sector('c'))])
    assert.ok(copied.length > 0 && copied.every((part, index) => part >= (copied[index - 1] ?? 0) && part <= 1))
    await assert.rejects(hypervisor.openLayer(id, 'root', sealed), { code: 'not-found' })
    await on.endLoan(base)
    await hypervisor.hydrate(id, 'root') // nothing is left to be done
    for (const [offset, fill] of [
      [FIRST, 'a'],
      [SECOND, 'b'],
      [THIRD, 'c'],
    ] as const) {
      await assertHolds(on, hypervisor, id, offset, fill)
    }
    await hypervisor.stop(id, 0)
    await hypervisor.start(id)
    await untilPrinted(hypervisor, id, 'ready', 2)
    await assertHolds(on, hypervisor, id, FIRST, 'a')
    assert.equal((await hypervisor.seal(id, 0)).layers.root!.length, 1)
  })

  must('copy a disk where the machine is paused, and leave it as it was where that is cancelled', async (on, hypervisor) => {
    const id = await sealedOnce(on, hypervisor)
    const base = await on.lend(await asSealed(on, hypervisor, id, [0]))
    await assert.rejects(hypervisor.hydrate(randomUUID(), 'root'), { code: 'not-found' })
    await assert.rejects(hypervisor.hydrate(id, 'other'), { code: 'not-found' })
    const cut = new AbortController()
    const held = heldUntil(cut.signal, await asSealed(on, hypervisor, id, [0]))
    await hypervisor.rebase(id, { root: { base: await on.lend(held.source), through: 0 } })
    held.begin()
    const options = { signal: cut.signal, onProgress: () => cut.abort() }
    await assert.rejects(hypervisor.hydrate(id, 'root', options), { code: 'cancelled' })
    await hypervisor.rebase(id, { root: { base, through: 0 } })
    await assertHolds(on, hypervisor, id, FIRST, 'a')
    await assertHolds(on, hypervisor, id, SECOND, 'b')

    await hypervisor.pause(id)
    await hypervisor.hydrate(id, 'root')
    await on.endLoan(base)
    assert.equal((await hypervisor.show(id)).power, 'paused')
    await hypervisor.resume(id)
    await assertHolds(on, hypervisor, id, FIRST, 'a')
    await hypervisor.stop(id, 0)
    await hypervisor.hydrate(id, 'root') // it is whole
    const { id: off } = await launched(on, hypervisor)
    await hypervisor.stop(off, 0)
    await assert.rejects(hypervisor.hydrate(off, 'root'), { code: 'conflict' })
  })
}
