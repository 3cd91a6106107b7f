import type { StreamDigest } from './chunk-store.ts'
import type { Engine } from './engine.ts'
import { LENT_ZEROS } from './stream-file.ts'
import type { Piece } from './workers/jobs.ts'
import { SLOT_BYTES } from './workers/slot-pool.ts'

/** Digests of one whole stream, computed on worker threads from the memory that its bytes pass through, in order. */
export class StreamDigests {
  readonly #workers: Engine['workers']
  readonly #streams: readonly { readonly algorithm: StreamDigest; readonly stream: number }[]

  constructor({ workers }: Pick<Engine, 'workers'>, algorithms: readonly StreamDigest[]) {
    this.#workers = workers
    this.#streams = [...new Set(algorithms)].map((algorithm) => ({ algorithm, stream: workers.openStream() }))
  }

  get algorithms(): readonly StreamDigest[] {
    return this.#streams.map(({ algorithm }) => algorithm)
  }

  /** Calls must follow the order of the stream. The memory of the piece is in use until it resolves. */
  async update(piece: Piece): Promise<void> {
    await Promise.all(
      this.#streams.map(({ algorithm, stream }) => this.#workers.runInStream({ kind: 'digest', stream, algorithm, piece })),
    )
  }

  /** @returns lower-case hex by algorithm */
  async finish(): Promise<Partial<Record<StreamDigest, string>>> {
    await this.update({ in: 'zeros', bytes: 0 }) // a stream of no bytes still has a digest
    const digests: Partial<Record<StreamDigest, string>> = {}
    for (const { algorithm, stream } of this.#streams)
      digests[algorithm] = await this.#workers.runInStream({ kind: 'digest-end', stream })
    return digests
  }

  /** Forgets a stream that ended early. */
  abandon(): void {
    for (const { stream } of this.#streams) void this.#workers.runInStream({ kind: 'digest-end', stream }).catch(() => undefined)
  }
}

export const pieceInSlot = (slot: number, bytes: number): Piece => ({ in: 'slots', at: slot * SLOT_BYTES, bytes })

/** Bytes that the store lent, without a copy where they lie in memory that the threads share. */
export function pieceOfLent({ readSlots }: Engine, bytes: Uint8Array): Piece {
  if (bytes.buffer === readSlots.memory) return { in: 'read-slots', at: bytes.byteOffset, bytes: bytes.length }
  if (bytes.buffer === LENT_ZEROS.buffer) return { in: 'zeros', bytes: bytes.length }
  return { in: 'message', content: bytes }
}
