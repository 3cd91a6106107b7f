import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import type { BlockSource, Extent } from '../../disk/block/block-source.ts'
import type { WritableSource } from '../../disk/block/block-writer.ts'
import { BLOCK } from '../../disk/filters/block-map.ts'
import { COW_BLOCK_BYTES, copyOnWrite, type Overlay } from '../../disk/filters/cow.ts'
import { ExchangeableSource } from './exchangeable-source.ts'
import { createLayer, deleteLayer, filesAreGone, layersIn, openLayer } from './scratch-file.ts'

/** A disk that is written in layers, so that it can be read as it was at one moment while it is being written. */
export interface ScratchDisk extends WritableSource {
  /** The lowest first; the last one is written to, the others are sealed. */
  readonly layers: readonly number[]
  /**
   * From one moment on writes go to a new layer: what lies below is the disk as it was then, durable, and changes no more. Who writes
   * meanwhile waits for a flush.
   * @returns the number of the layer that is sealed
   * @throws ServiceError `unavailable` for more layers than a disk may have; errors of the system pass through; then nothing is sealed
   */
  seal(): Promise<number>
  /** The disk as it was when that layer was sealed; until `rebase` or `close`. Closing it does nothing. */
  asOf(layer: number): BlockSource
  /** Where that differs from the base: ascending, whole blocks but at the end of the disk. */
  changedUpTo(layer: number): AsyncIterable<DiskRange>
  /**
   * From now on the layers above this one lie on another base, which reads as the disk did when it was sealed; it and those below are
   * deleted. Cut short they are there yet, over the new base, where they change nothing.
   * @param base closed with the disk
   */
  rebase(layer: number, base: BlockSource): Promise<void>
}

export interface DiskRange {
  /** Bytes. */
  readonly offset: number
  readonly length: number
}

interface Layer {
  readonly number: number
  /** What lies under it. */
  readonly under: ExchangeableSource
  readonly overlay: Overlay
  /** Both together: the disk as of this layer. */
  readonly disk: WritableSource
}

/** Each costs three open files, a map in memory, and a look at each read of what was never written. */
const MAX_LAYERS = 32
/** Blocks that are looked at in one go, 4 GiB: more are told in several ranges. */
const RANGE_BLOCKS = 65_536

export class LayeredDisk implements ScratchDisk {
  readonly size: number
  readonly zeroesAreFast = true
  readonly #folder: string
  readonly #bootId: string
  readonly #onClosed: () => Promise<void>
  #layers: Layer[]
  #changes = 0
  /** Settles when those who seal before have ended. */
  #seals: Promise<unknown> = Promise.resolve()
  /** While nobody may write: settles when they may. */
  #standing: Promise<void> | undefined
  /** Called when the last change under way has ended. */
  #onStill: (() => void) | undefined

  private constructor(folder: string, size: number, layers: Layer[], bootId: string, onClosed: () => Promise<void>) {
    this.#folder = folder
    this.size = size
    this.#layers = layers
    this.#bootId = bootId
    this.#onClosed = onClosed
  }

  /**
   * @param base closed with the disk, not where this fails
   * @param onClosed called when all its files are closed
   * @throws ServiceError `corrupt`; errors of the system pass through
   */
  static async open(folder: string, base: BlockSource, bootId: string, onClosed: () => Promise<void>): Promise<LayeredDisk> {
    const layers: Layer[] = []
    try {
      for (const number of await layersOf(folder)) {
        layers.push(layerOver(layers.at(-1)?.disk ?? base, number, await openLayer(folder, number, base.size, bootId)))
      }
    } catch (error) {
      for (const { overlay } of layers) await overlay.close()
      throw error
    }
    // a seal that a kill cut short left them with what was answered and not flushed, and nobody flushes but the topmost
    for (const { disk } of layers.slice(0, -1)) await disk.flush()
    return new LayeredDisk(folder, base.size, layers, bootId, onClosed)
  }

  get layers(): readonly number[] {
    return this.#layers.map(({ number }) => number)
  }

  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    return this.#top.disk.read(offset, length, into)
  }

  extents(offset: number, length: number): AsyncIterable<Extent> {
    return this.#top.disk.extents(offset, length)
  }

  write(offset: number, bytes: Uint8Array): Promise<void> {
    return this.#change((disk) => disk.write(offset, bytes))
  }

  writeZeroes(offset: number, length: number, mayPunch: boolean): Promise<void> {
    return this.#change((disk) => disk.writeZeroes(offset, length, mayPunch))
  }

  trim(offset: number, length: number): Promise<void> {
    return this.#change((disk) => disk.trim(offset, length))
  }

  /** What was written to a layer that is sealed by now was made durable by that. */
  flush(): Promise<void> {
    return this.#top.disk.flush()
  }

  seal(): Promise<number> {
    const sealed = this.#seals.catch(() => undefined).then(() => this.#seal())
    this.#seals = sealed
    return sealed
  }

  asOf(layer: number): BlockSource {
    const { disk } = this.#sealed(layer)
    return {
      size: this.size,
      read: (offset, length, into) => disk.read(offset, length, into),
      extents: (offset, length) => disk.extents(offset, length),
      close: async () => {},
    }
  }

  async *changedUpTo(layer: number): AsyncGenerator<DiskRange> {
    this.#sealed(layer)
    const maps = this.#layers.filter(({ number }) => number <= layer).map(({ overlay }) => overlay.map)
    const isChanged = (block: number) => maps.some((map) => map.get(block) !== BLOCK.absent)
    const blocks = maps[0]?.blocks ?? 0
    for (let block = 0; block < blocks; ) {
      const changed = isChanged(block)
      const most = Math.min(blocks, block + RANGE_BLOCKS)
      let end = Math.min(...maps.map((map) => map.runEnd(block, most))) // as far as each of them says the same
      while (end < most && isChanged(end) === changed) end += 1
      const offset = block * COW_BLOCK_BYTES
      if (changed) yield { offset, length: Math.min(this.size, end * COW_BLOCK_BYTES) - offset }
      else await new Promise(setImmediate) // between two looks everybody else has a turn
      block = end
    }
  }

  async rebase(layer: number, base: BlockSource): Promise<void> {
    const at = this.#layers.indexOf(this.#sealed(layer))
    const before = await this.#layers[at + 1]!.under.exchange(base)
    const dropped = this.#layers.splice(0, at + 1)
    await before.close()
    // from the lowest on: one that stays may not show what one above it had covered
    for (const { number } of dropped) await deleteLayer(this.#folder, number)
  }

  async close(): Promise<void> {
    try {
      await this.#top.disk.close()
    } finally {
      await this.#onClosed()
    }
  }

  get #top(): Layer {
    return this.#layers.at(-1)!
  }

  #sealed(layer: number): Layer {
    const found = this.#layers.find(({ number }) => number === layer)
    if (found && found !== this.#top) return found
    throw new Error(`a scratch disk has no sealed layer ${layer}`)
  }

  async #change(work: (disk: WritableSource) => Promise<void>): Promise<void> {
    while (this.#standing) await this.#standing
    this.#changes += 1
    try {
      await work(this.#top.disk)
    } finally {
      this.#changes -= 1
      if (this.#changes === 0) this.#onStill?.()
    }
  }

  async #seal(): Promise<number> {
    const top = this.#top
    if (this.#layers.length >= MAX_LAYERS) {
      throw new ServiceError(
        'unavailable',
        `the disk has ${MAX_LAYERS} layers, which is the most: wait until its snapshots are done`,
        { layers: MAX_LAYERS },
      )
    }
    const number = top.number + 1
    await createLayer(this.#folder, number, this.size)
    failpoint('scratch:layer-made')
    const overlay = await openLayer(this.#folder, number, this.size, this.#bootId)
    try {
      await top.disk.flush() // most of what the next one would take, while others write
      await this.#whileStill(async () => {
        await top.disk.flush()
        this.#layers.push(layerOver(top.disk, number, overlay))
      })
    } catch (error) {
      await overlay.close()
      await deleteLayer(this.#folder, number)
      throw error
    }
    failpoint('scratch:sealed')
    return top.number
  }

  /** Lets changes under way end, and new ones wait. */
  async #whileStill(work: () => Promise<void>): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#standing = promise
    try {
      if (this.#changes > 0) {
        await new Promise<void>((still) => {
          this.#onStill = still
        })
      }
      await work()
    } finally {
      this.#onStill = undefined
      this.#standing = undefined
      resolve()
    }
  }
}

async function layersOf(folder: string): Promise<readonly number[]> {
  try {
    const layers = await layersIn(folder)
    if (layers.length > 0) return layers
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  throw filesAreGone()
}

function layerOver(below: BlockSource, number: number, overlay: Overlay): Layer {
  const under = new ExchangeableSource(below)
  return { number, under, overlay, disk: copyOnWrite(under, overlay) }
}
