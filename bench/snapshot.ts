/**
 * A snapshot by what changed: a disk of 2 GiB in the store and 20 MB written on it, made into a new file by reading the changes alone,
 * beside reading the whole disk. Prints seconds, bytes read of the disk, and bytes added to the store; medians.
 *
 *   node bench/snapshot.ts [rounds]
 */
import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { GiB, KiB, MiB } from '../src/base/units.ts'
import { type BlockSource, stack } from '../src/disk/block/block-source.ts'
import { memorySource } from '../src/disk/block/memory-source.ts'
import { layer } from '../src/disk/filters/layer.ts'
import { FsBlobStore } from '../src/store/blobs/fs/fs-blob-store.ts'
import type { ChunkStore, Ingested } from '../src/store/chunks/chunk-store.ts'
import { SqliteChunkIndex } from '../src/store/chunks/index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from '../src/store/chunks/open.ts'
import { measured } from './glance/bench-case.ts'

const [rounds = '5'] = process.argv.slice(2)
const DISK_BYTES = 2 * GiB
const CHANGED_BYTES = 20 * MiB
/** How the changes lie: in so many pieces, spread over the disk. */
const spreads = [1, 320, 5120]

const folder = await mkdtemp(join(tmpdir(), 'imprint-snapshot-'))
const blobs = await FsBlobStore.open(join(folder, 'blobs'))
const store = await openChunkStore({ blobs, index: await SqliteChunkIndex.open(join(folder, 'index.db')) })
try {
  const base = await store.ingest(noise(DISK_BYTES, 'base'), { owner: 'bench' })
  await base.lease.release()
  for (const pieces of spreads) {
    const taken: Snapshot[] = []
    for (let round = 0; round < Number(rounds); round += 1) taken.push(await snapshot(store, base.manifest, pieces, `${round}`))
    print(`20 MiB in ${pieces} ${pieces === 1 ? 'piece' : 'pieces'}, by the changes`, taken)
  }
  const whole = [await snapshot(store, base.manifest, 1, 'whole', true)]
  print('20 MiB in 1 piece, by the whole disk (once)', whole)
} finally {
  await store.close()
  await blobs.close()
  await rm(folder, { recursive: true })
}

interface Snapshot {
  readonly seconds: number
  readonly readBytes: number
  readonly newBytes: number
}

async function snapshot(chunks: ChunkStore, manifest: string, pieces: number, seed: string, isWhole = false): Promise<Snapshot> {
  const top = await changes(pieces, seed)
  const changed = top.pieces.map(({ offset, bytes }) => ({ offset, length: bytes.length }))
  const { disk, readBytes } = counted(stack(await chunks.open(manifest), [layer(top.source)]))
  const begun = performance.now()
  const ingested: Ingested = await chunks.ingestDisk(disk, {
    owner: 'bench',
    ...(isWhole ? {} : { over: { manifest, changed } }),
  })
  await ingested.lease.release()
  const seconds = (performance.now() - begun) / 1000
  await disk.close()
  return { seconds, readBytes: readBytes(), newBytes: ingested.newBytes }
}

async function changes(count: number, seed: string) {
  const bytes = CHANGED_BYTES / count
  const all = Buffer.concat(await Array.fromAsync(noise(CHANGED_BYTES, `changes ${count} ${seed}`)))
  const pieces = Array.from({ length: count }, (_, index) => ({
    offset: Math.floor((index * DISK_BYTES) / count / (64 * KiB)) * 64 * KiB,
    bytes: all.subarray(index * bytes, (index + 1) * bytes),
  }))
  return { pieces, source: memorySource(DISK_BYTES, pieces) }
}

function counted(disk: BlockSource) {
  let bytes = 0
  const source: BlockSource = {
    ...disk,
    read: (offset, length, into) => {
      bytes += length
      return disk.read(offset, length, into)
    },
  }
  return { disk: source, readBytes: () => bytes }
}

function print(what: string, taken: readonly Snapshot[]): void {
  const middle = (of: (one: Snapshot) => number) => measured(taken.map(of)).median
  const [seconds, read, stored] = [middle((one) => one.seconds), middle((one) => one.readBytes), middle((one) => one.newBytes)]
  const mb = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`
  console.log(
    `${what.padEnd(48)} ${seconds.toFixed(3).padStart(8)} s  read ${mb(read).padStart(9)}  stored ${mb(stored).padStart(8)}`,
  )
}

/** Bytes that nothing compresses, the same for the same seed. */
async function* noise(bytes: number, seed: string): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes; at += MiB) {
    yield createHash('shake256', { outputLength: Math.min(MiB, bytes - at) })
      .update(`${seed} ${at}`)
      .digest()
  }
}
