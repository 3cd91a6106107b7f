import { ServiceError } from '../../base/errors.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { DIGEST_BYTES } from '../../store/content/digests.ts'
import { cancelled, persist } from '../client/http-client.ts'
import type { ImprintClient, Upload } from '../client/imprint-client.ts'
import type { TransferState } from '../progress.ts'
import { batches, type ChunkRun, dataRuns } from './chunk-plan.ts'
import { ChunkWorkers } from './chunk-workers.ts'
import { RECORD_BYTES, type UploadState } from './upload-state.ts'

const BATCH_BYTES = 4 * 1024 * 1024
/** Batches under way at once: each holds `BATCH_BYTES` of memory, and up to as much again of compressed chunks, and one connection. */
const LANES = 6
/** About two minutes of trying while the service restarts or the line is down. */
const TRIES = 9

export interface SendOptions {
  readonly source: BlockSource
  readonly upload: Upload
  readonly state: UploadState
  readonly imprint: ImprintClient
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}
export interface Sent {
  /** Bytes of the chunks that hold data. */
  readonly dataBytes: number
  /** Of these, dealt with by an earlier run. */
  readonly resumedBytes: number
  /** Bytes that went over the line. */
  readonly movedBytes: number
  readonly chunksSent: number
}

/**
 * Reads the data of `source`, and sends those chunks that the service lacks. Holds `LANES` batches, however large the source is.
 * What is dealt with is recorded in `state` at once, so that a later run goes on from there.
 */
export async function sendChunks(options: SendOptions): Promise<Sent> {
  const { source, upload, state, signal, onProgress } = options
  const { chunkBytes } = upload
  let dataBytes = 0
  for await (const { count } of dataRuns(source, chunkBytes)) dataBytes += count * chunkBytes
  const sent = { dataBytes, resumedBytes: 0, movedBytes: 0, chunksSent: 0 }
  let doneBytes = 0
  const advance = (chunks: number): void => {
    doneBytes += chunks * chunkBytes
    onProgress({ phase: 'Sending', doneBytes, totalBytes: dataBytes, movedBytes: sent.movedBytes })
  }
  const undone = unfinished(dataRuns(source, chunkBytes), state, (chunks) => {
    sent.resumedBytes += chunks * chunkBytes
    advance(chunks)
  })
  const work = batches(undone, Math.max(1, BATCH_BYTES / chunkBytes))[Symbol.asyncIterator]()
  const workers = new ChunkWorkers()
  const stop = new AbortController()
  const stopped = AbortSignal.any([signal, stop.signal])
  const lane = async (): Promise<void> => {
    const memory = new SharedArrayBuffer(Math.max(BATCH_BYTES, chunkBytes))
    for (;;) {
      if (stopped.aborted) throw cancelled()
      const { value: batch, done } = await work.next()
      if (done) return
      const { moved, chunks } = await sendBatch(batch, memory, workers, { ...options, signal: stopped })
      sent.movedBytes += moved
      sent.chunksSent += chunks
      advance(chunksOf(batch))
    }
  }
  try {
    const lanes = Array.from({ length: LANES }, () =>
      lane().catch((error: unknown) => {
        stop.abort()
        throw error
      }),
    )
    const failed = (await Promise.allSettled(lanes)).flatMap((result) =>
      result.status === 'rejected' ? [result.reason as unknown] : [],
    )
    // the lane that failed first stopped the others: their 'cancelled' is not the reason
    const reason = failed.find((error) => !(error instanceof ServiceError && error.code === 'cancelled')) ?? failed[0]
    if (reason) throw reason
    return sent
  } finally {
    await workers.close()
  }
}

const chunksOf = (batch: readonly ChunkRun[]): number => batch.reduce((sum, { count }) => sum + count, 0)

/** What no earlier run dealt with. */
async function* unfinished(
  runs: AsyncIterable<ChunkRun>,
  state: UploadState,
  onKnown: (chunks: number) => void,
): AsyncIterable<ChunkRun> {
  const PAGE = 4096
  for await (const run of runs) {
    for (let at = 0; at < run.count; at += PAGE) {
      const count = Math.min(PAGE, run.count - at)
      const records = await state.read(run.first + at, count)
      const isDone = (index: number): boolean => records[index * RECORD_BYTES] !== 0
      for (let from = 0; from < count; ) {
        let to = from + 1
        while (to < count && isDone(to) === isDone(from)) to += 1
        if (isDone(from)) onKnown(to - from)
        else yield { first: run.first + at + from, count: to - from }
        from = to
      }
    }
  }
}

async function sendBatch(
  batch: readonly ChunkRun[],
  memory: SharedArrayBuffer,
  workers: ChunkWorkers,
  { source, upload, state, imprint, signal }: SendOptions,
): Promise<{ readonly moved: number; readonly chunks: number }> {
  const views = await readBatch(batch, memory, source, upload.chunkBytes)
  const records = await workers.hash(memory, views)
  const data = views.flatMap((_, index) => (records[index * RECORD_BYTES] === 2 ? [index] : []))
  const digests = Buffer.concat(data.map((index) => records.subarray(index * RECORD_BYTES + 1, (index + 1) * RECORD_BYTES)))
  let moved = 0
  let chunks = 0
  if (data.length > 0) {
    const lacking = await persist(TRIES, signal, () => imprint.lacks(upload.id, digests, signal))
    const wanted = data.map((index, at) => ({ index, at })).filter(({ at }) => lacking[at] === 1)
    if (wanted.length > 0) {
      const frames = await workers.compress(
        memory,
        wanted.map(({ index }) => views[index]!),
        Buffer.concat(wanted.map(({ at }) => digests.subarray(at * DIGEST_BYTES, (at + 1) * DIGEST_BYTES))),
      )
      await persist(TRIES, signal, () => imprint.putFrames(upload.id, frames, signal))
      moved = frames.length
      chunks = wanted.length
    }
    moved += digests.length
  }
  let at = 0
  for (const { first, count } of batch) {
    await state.record(first, records.subarray(at * RECORD_BYTES, (at + count) * RECORD_BYTES))
    at += count
  }
  return { moved, chunks }
}

/** Reads the batch's chunks into the lane's memory; the last chunk of a file may be short. */
async function readBatch(
  batch: readonly ChunkRun[],
  memory: SharedArrayBuffer,
  source: BlockSource,
  chunkBytes: number,
): Promise<(readonly [offset: number, length: number])[]> {
  const into = new Uint8Array(memory)
  const views: (readonly [number, number])[] = []
  let at = 0
  for (const { first, count } of batch) {
    const offset = first * chunkBytes
    const length = Math.min(count * chunkBytes, source.size - offset)
    const place = into.subarray(at, at + length)
    const read = await source.read(offset, length, place)
    if (read !== place) place.set(read)
    for (let chunk = 0; chunk < length; chunk += chunkBytes) views.push([at + chunk, Math.min(chunkBytes, length - chunk)])
    at += length
  }
  return views
}
