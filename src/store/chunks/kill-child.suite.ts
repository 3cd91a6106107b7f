/**
 * A process to be killed: `node kill-child.suite.ts FOLDER`. Ingests, drops, collects and uploads by chunks, and notes in
 * FOLDER/records, synced as a catalog would, what has been acknowledged: `+manifest seed`, `-manifest`, and `?upload` for an
 * upload by chunks that may still be open.
 */
import { createHash } from 'node:crypto'
import { existsSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { bytesSource } from '../../disk/block/memory-source.ts'
import { FsBlobStore } from '../blobs/fs/fs-blob-store.ts'
import type { Ingested } from './chunk-store.ts'
import { SqliteChunkIndex } from './index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from './open.ts'
import { fileOf, inSteps, type Piece } from './random-files.suite.ts'

export const CHUNK_BYTES = 4096

/** Files with even seeds share a part, so that dropping one leaves packs half alive. */
export const fileOfSeed = (seed: number): Uint8Array => {
  const shared: Piece = { fill: 'noise', bytes: 40 * CHUNK_BYTES, seed: 1000 + (seed % 2) }
  return fileOf([
    shared,
    { fill: 'zeros', bytes: 9 * CHUNK_BYTES, seed: 0 },
    { fill: 'noise', bytes: 50 * CHUNK_BYTES + 77, seed },
  ])
}

export async function openFsStore(folder: string) {
  const blobs = await FsBlobStore.open(join(folder, 'blobs'))
  const index = await SqliteChunkIndex.open(join(folder, 'index.db'))
  const store = await openChunkStore({ blobs, index, workers: 2, chunkBytes: CHUNK_BYTES })
  let closing: Promise<void> | undefined
  const close = () => {
    closing ??= store.close().then(() => blobs.close())
    return closing
  }
  return { blobs, store, close }
}

export function uploadsIn(folder: string): string[] {
  const lines = existsSync(join(folder, 'records')) ? readFileSync(join(folder, 'records'), 'utf8').split('\n').slice(0, -1) : []
  return lines.filter((line) => line.startsWith('?')).map((line) => line.slice(1))
}

/** Manifest → seed of the file that it must be. */
export function recordsIn(folder: string): Map<string, number> {
  const records = new Map<string, number>()
  if (!existsSync(join(folder, 'records'))) return records // killed before the first
  const text = readFileSync(join(folder, 'records'), 'utf8')
  for (const line of text.split('\n').slice(0, -1)) {
    const [manifest = '', seed] = line.slice(1).split(' ')
    if (line.startsWith('?')) continue
    if (line.startsWith('+')) records.set(manifest, Number(seed))
    else records.delete(manifest)
  }
  return records
}

async function main(folder: string): Promise<void> {
  const { store } = await openFsStore(folder)
  const file = openSync(join(folder, 'records'), 'a')
  const note = (line: string) => {
    writeSync(file, `${line}\n`)
    fsyncSync(file)
  }
  const live = async function* () {
    yield* recordsIn(folder).keys()
  }
  const keep = async (ingested: Ingested, seed: number) => {
    note(`+${ingested.manifest} ${seed}`)
    await ingested.lease.release()
    return ingested.manifest
  }
  const put = async (seed: number) => keep(await store.ingest(inSteps(fileOfSeed(seed), 30_000), { owner: 'p' }), seed)
  /** The files of both seeds are as long, and differ behind what all share. */
  const putOver = async (manifest: string, below: number, seed: number) => {
    const [before, bytes] = [fileOfSeed(below), fileOfSeed(seed)]
    const offset = before.findIndex((byte, at) => byte !== bytes[at])
    const changed = [{ offset, length: bytes.length - offset }]
    await keep(await store.ingestDisk(bytesSource(bytes), { owner: 'p', over: { manifest, changed } }), seed)
  }
  const remove = async (manifest: string) => {
    note(`-${manifest}`)
    await store.drop(manifest)
  }
  const send = async (seed: number) => {
    const bytes = fileOfSeed(seed)
    const chunks = Array.from({ length: Math.ceil(bytes.length / CHUNK_BYTES) }, (_, index) => {
      const plain = bytes.slice(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES)
      return { bytes: plain, codec: 'plain' as const, digest: new Uint8Array(createHash('sha256').update(plain).digest()) }
    })
    const upload = await store.beginUpload({ owner: 'p' })
    note(`?${upload.id}`)
    for (let at = 0; at < chunks.length; at += 30) await upload.put(chunks.slice(at, at + 30))
    const digests = async function* () {
      for (const { digest } of chunks) yield digest
    }
    await keep(await upload.commit(bytes.length, digests()), seed)
  }
  for (let round = 0; ; round += 1) {
    const base = 10 * round
    const [one, two] = await Promise.all([put(base + 1), put(base + 2), put(base + 3)])
    await putOver(two, base + 2, base + 6)
    const second = await put(base + 4)
    await remove(one)
    await store.collect(live)
    await send(base + 5)
    await remove(second)
    await store.collect(live)
  }
}

if (process.argv[1] === import.meta.filename) {
  await main(process.argv[2] ?? '')
}
