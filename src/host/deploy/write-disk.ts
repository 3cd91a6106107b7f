import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { KiB } from '../../base/units.ts'
import type { Piece } from '../../disk/block/memory-source.ts'
import { isZero } from '../../disk/block/zero.ts'
import { digestAt, isZeroAt } from '../../store/content/digests.ts'
import { ChunkLanes, LANES, WINDOW_BYTES } from './chunk-lanes.ts'
import type { ImageDisk, Wanted } from './image-disk.ts'
import { patchedDisk, type Stretch, stretchesBeyond } from './patched-disk.ts'
import type { Target } from './target.ts'
import { stopped } from './zeroing.ts'

/** Boot sector, partition table, the start of a boot loader: without them no firmware starts from a disk. */
const HEAD_BYTES = 64 * KiB

export interface Deployment {
  readonly image: ImageDisk
  /** At least as large as the image. */
  readonly target: Target
  /** Other bytes than the image's, some of them beyond its end. */
  readonly patches: readonly Piece[]
  /** Only compares. */
  readonly isDry: boolean
  readonly signal: AbortSignal
  readonly onProgress: (progress: DeployProgress) => void
}
export interface DeployProgress {
  readonly phase: 'Comparing' | 'Writing' | 'Verifying'
  readonly doneBytes: number
  readonly totalBytes: number
  readonly writtenBytes: number
}
/** Bytes of the disk, by what was found and done; in a dry run, by what would be done. */
export interface Deployed {
  readonly comparedBytes: number
  readonly sameBytes: number
  readonly writtenBytes: number
  /** Made zeros, without sending them where the medium can do that by itself. */
  readonly zeroedBytes: number
  /** Read back after they were written. */
  readonly verifiedBytes: number
}

interface Difference {
  readonly offset: number
  readonly length: number
  /** `absent`: to be read from the image. */
  readonly bytes: Uint8Array | 'zeros' | 'absent'
}
interface Window extends Stretch {
  readonly index: number
}

/**
 * Makes the target hold the image: reads it, and writes the chunks that differ. What decides is on the target itself, so a run that was
 * cut off at any point is gone on with by the next. From before the first change until all else is written, flushed and read back, the
 * head of the disk is zeros: no firmware starts from a disk that is not finished. Holds four windows of 4 MiB, however large the disk.
 * @throws ServiceError of the image and the target; `corrupt` where other bytes are read back; `cancelled`
 */
export async function writeDisk(deployment: Deployment): Promise<Deployed> {
  const lanes = new ChunkLanes()
  try {
    return await new DiskWriter(deployment, lanes).run()
  } finally {
    await lanes.close()
  }
}

class DiskWriter {
  readonly #image: ImageDisk
  readonly #target: Target
  readonly #isDry: boolean
  readonly #signal: AbortSignal
  readonly #onProgress: Deployment['onProgress']
  readonly #lanes: ChunkLanes
  readonly #head: Stretch
  readonly #beyond: readonly Stretch[]
  readonly #totalBytes: number
  /** By window, whether something was written to it. */
  readonly #isChanged: Uint8Array
  #begun: Promise<void> | undefined
  #comparedBytes = 0
  #writtenBytes = 0
  #zeroedBytes = 0
  #verifiedBytes = 0

  constructor({ image, target, patches, isDry, signal, onProgress }: Deployment, lanes: ChunkLanes) {
    this.#image = patchedDisk(image, patches)
    this.#target = target
    this.#isDry = isDry
    this.#signal = signal
    this.#onProgress = onProgress
    this.#lanes = lanes
    this.#head = { offset: 0, length: Math.min(image.size, Math.max(HEAD_BYTES, image.chunkBytes)) }
    this.#beyond = stretchesBeyond(image.size, patches, WINDOW_BYTES)
    this.#totalBytes = image.size + this.#beyond.reduce((sum, { length }) => sum + length, 0)
    this.#isChanged = new Uint8Array(Math.ceil(image.size / WINDOW_BYTES) + this.#beyond.length)
  }

  async run(): Promise<Deployed> {
    const head = await this.#differences(0, this.#head)
    this.#count(this.#head, head)
    await this.#inLanes(this.#windows(), (lane, window) => this.#bring(lane, window))
    if (!this.#isDry && (this.#begun || head.length > 0)) {
      this.#begun ??= this.#begin() // also where the head alone differs: half of it must not look whole
      await this.#begun
      await this.#finish()
    }
    return {
      comparedBytes: this.#comparedBytes,
      sameBytes: this.#comparedBytes - this.#writtenBytes - this.#zeroedBytes,
      writtenBytes: this.#writtenBytes,
      zeroedBytes: this.#zeroedBytes,
      verifiedBytes: this.#verifiedBytes,
    }
  }

  async #bring(lane: number, window: Window): Promise<void> {
    const differences = await this.#differences(lane, window)
    if (differences.length > 0 && !this.#isDry) {
      this.#begun ??= this.#begin()
      await this.#begun
      for (const run of mergedRuns(differences)) await this.#write(run)
      this.#isChanged[window.index] = 1
      failpoint('deploy:window-written')
    }
    this.#count(window, differences)
    this.#tell(this.#writtenBytes > 0 ? 'Writing' : 'Comparing', this.#comparedBytes, this.#totalBytes)
  }

  /** The disk stops being one that firmware would start from. */
  async #begin(): Promise<void> {
    await this.#target.zero(0, this.#head.length)
    await this.#target.sync()
    failpoint('deploy:begun')
  }

  async #write({ offset, length, bytes }: Difference): Promise<void> {
    if (bytes === 'zeros') return this.#target.zero(offset, length)
    return this.#target.write(offset, bytes === 'absent' ? await this.#image.read(offset, length) : bytes)
  }

  async #finish(): Promise<void> {
    await this.#target.sync()
    failpoint('deploy:synced')
    await this.#inLanes(this.#changedWindows(), (lane, window) => this.#verify(lane, window))
    failpoint('deploy:verified')
    const { length } = this.#head
    const head = await this.#image.read(0, length)
    const first = Math.min(this.#target.sectorBytes, length)
    await this.#target.write(first, head.subarray(first))
    await this.#target.sync()
    failpoint('deploy:head-written')
    await this.#target.write(0, head.subarray(0, first)) // one sector: it is there or not
    await this.#target.sync()
    await this.#verify(0, this.#head)
  }

  async #verify(lane: number, stretch: Stretch): Promise<void> {
    const [wrong] = await this.#differences(lane, stretch)
    if (wrong) {
      const message = `${this.#target.path} reads back other bytes than were written to it, at byte ${wrong.offset}: the medium is failing. Replace it`
      throw new ServiceError('corrupt', message, { offset: wrong.offset })
    }
    this.#verifiedBytes += stretch.length
    this.#tell('Verifying', this.#verifiedBytes, Math.max(this.#verifiedBytes, this.#changedBytes()))
  }

  /** Where the target holds other bytes than it shall. What cannot be read is different: writing may mend it. */
  async #differences(lane: number, { offset, length }: Stretch): Promise<readonly Difference[]> {
    const pieceBytes = offset < this.#image.size ? this.#image.chunkBytes : length
    const [wanted, found] = await Promise.all([this.#image.wanted(offset, length), this.#found(lane, offset, length)])
    const isKnown = wanted.some((one) => one !== 'unread')
    const digests = found && isKnown ? await this.#lanes.hash(lane, length, pieceBytes) : undefined
    const unread = await this.#readUnread(wanted, offset, length, pieceBytes)
    const differences: Difference[] = []
    for (const [index, one] of wanted.entries()) {
      const at = index * pieceBytes
      const piece = { offset: offset + at, length: Math.min(pieceBytes, length - at) }
      const bytes = unread.get(index)
      if (bytes) {
        const there = found?.subarray(at, at + piece.length)
        const isThere = there !== undefined && Buffer.compare(there, bytes) === 0
        if (!isThere) differences.push({ ...piece, bytes: isZero(bytes) ? 'zeros' : bytes })
      } else if (!digests || !isSame(one, digests, index)) {
        differences.push({ ...piece, bytes: one === 'zeros' ? 'zeros' : 'absent' })
      }
    }
    return differences
  }

  /** The pieces that only reading tells, by their index; neighbours come together. */
  async #readUnread(
    wanted: readonly Wanted[],
    offset: number,
    length: number,
    pieceBytes: number,
  ): Promise<ReadonlyMap<number, Uint8Array>> {
    const pieces = new Map<number, Uint8Array>()
    for (let from = 0; from < wanted.length; from += 1) {
      if (wanted[from] !== 'unread') continue
      let to = from + 1
      while (wanted[to] === 'unread') to += 1
      const start = from * pieceBytes
      const bytes = await this.#image.read(offset + start, Math.min(to * pieceBytes, length) - start)
      for (let index = from; index < to; index += 1) {
        pieces.set(index, bytes.subarray((index - from) * pieceBytes, (index - from + 1) * pieceBytes))
      }
      from = to
    }
    return pieces
  }

  /** What the target holds, in the lane's memory. Undefined where it cannot be read. */
  #found(lane: number, offset: number, length: number): Promise<Uint8Array | undefined> {
    return this.#target.read(offset, length, this.#lanes.memory(lane)).catch(() => undefined)
  }

  *#windows(): Generator<Window> {
    const { size } = this.#image
    for (let at = this.#head.length; at < size; ) {
      const index = Math.floor(at / WINDOW_BYTES)
      const end = Math.min(size, (index + 1) * WINDOW_BYTES)
      yield { index, offset: at, length: end - at }
      at = end
    }
    const first = Math.ceil(size / WINDOW_BYTES)
    for (const [index, stretch] of this.#beyond.entries()) yield { index: first + index, ...stretch }
  }

  *#changedWindows(): Generator<Window> {
    for (const window of this.#windows()) if (this.#isChanged[window.index] === 1) yield window
  }

  #changedBytes(): number {
    const count = this.#isChanged.reduce((sum, one) => sum + one, 0)
    return Math.min(this.#totalBytes, count * WINDOW_BYTES + this.#head.length)
  }

  /** Takes windows in order, as many at a time as there are lanes; the first failure stops the others. */
  async #inLanes(windows: Generator<Window>, work: (lane: number, window: Window) => Promise<void>): Promise<void> {
    let failure: unknown
    let isOver = false
    const run = async (lane: number): Promise<void> => {
      for (const window of windows) {
        if (isOver) return
        this.#signal.throwIfAborted()
        await work(lane, window)
      }
    }
    const running = Array.from({ length: LANES }, (_, lane) =>
      run(lane).catch((error: unknown) => {
        if (!isOver) failure = error
        isOver = true
      }),
    )
    await Promise.all(running)
    if (this.#signal.aborted) throw stopped()
    if (isOver) throw failure
  }

  #count({ length }: Stretch, differences: readonly Difference[]): void {
    this.#comparedBytes += length
    for (const { length: bytes, bytes: content } of differences) {
      if (content === 'zeros') this.#zeroedBytes += bytes
      else this.#writtenBytes += bytes
    }
  }

  #tell(phase: DeployProgress['phase'], doneBytes: number, totalBytes: number): void {
    this.#onProgress({ phase, doneBytes, totalBytes, writtenBytes: this.#writtenBytes })
  }
}

function isSame(wanted: Wanted, digests: Uint8Array, index: number): boolean {
  if (wanted === 'zeros') return isZeroAt(digests, index)
  return wanted !== 'unread' && Buffer.compare(digestAt(digests, index), wanted) === 0
}

/** Neighbours become one, where both are zeros or both are still to be read: one request, one write. */
function mergedRuns(differences: readonly Difference[]): readonly Difference[] {
  const runs: Difference[] = []
  for (const next of differences) {
    const last = runs.at(-1)
    const isOne =
      last && last.offset + last.length === next.offset && last.bytes === next.bytes && !(next.bytes instanceof Uint8Array)
    if (isOne) runs[runs.length - 1] = { ...last, length: last.length + next.length }
    else runs.push(next)
  }
  return runs
}
