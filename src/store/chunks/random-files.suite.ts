import { createHash } from 'node:crypto'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BlobStore } from '../blobs/blob-store.ts'
import { MemoryBlobStore } from '../blobs/memory/memory-blob-store.ts'
import type { ChunkStore, Ingested, Live } from './chunk-store.ts'
import { SqliteChunkIndex } from './index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from './open.ts'

/** A store in memory; `workers` 2, small chunks so that small files have many. */
export async function memoryStore(blobs: BlobStore = new MemoryBlobStore(), chunkBytes = 4096): Promise<ChunkStore> {
  return openChunkStore({ blobs, index: await SqliteChunkIndex.open(':memory:'), workers: 2, chunkBytes })
}

export const freshFolder = (): string => mkdtempSync(join(tmpdir(), 'imprint-store-'))

/** Pieces of a file: what it repeats, what is zero, what does not compress. */
export interface Piece {
  readonly fill: 'zeros' | 'text' | 'noise'
  readonly bytes: number
  readonly seed: number
}

export function fileOf(pieces: readonly Piece[]): Uint8Array {
  return new Uint8Array(
    Buffer.concat(
      pieces.map(({ fill, bytes, seed }) => {
        if (fill === 'zeros') return Buffer.alloc(bytes)
        if (fill === 'text') return Buffer.alloc(bytes, `line ${seed} of some text that compresses. `)
        return noise(bytes, seed)
      }),
    ),
  )
}

/** The same bytes for the same seed. */
export function noise(bytes: number, seed: number): Buffer {
  const blocks = Array.from({ length: Math.ceil(bytes / 64) }, (_, block) =>
    createHash('sha512').update(`${seed}:${block}`).digest(),
  )
  return Buffer.concat(blocks).subarray(0, bytes)
}

/** Hands a file out in pieces of `step` bytes. */
export async function* inSteps(bytes: Uint8Array, step: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += step) yield bytes.slice(at, at + step)
}

export async function readAll(store: ChunkStore, manifest: string, offset = 0, length?: number): Promise<Uint8Array> {
  const source = await store.open(manifest)
  const wanted = length ?? source.size - offset
  await source.close()
  const parts: Uint8Array[] = []
  for await (const part of store.stream(manifest, offset, wanted)) parts.push(part)
  return new Uint8Array(Buffer.concat(parts))
}

export async function ingestAndRelease(store: ChunkStore, bytes: Uint8Array, owner = 'project'): Promise<Ingested> {
  const ingested = await store.ingest(inSteps(bytes, 10_000), { owner })
  await ingested.lease.release()
  return ingested
}

export async function* these(...names: Live[]): AsyncGenerator<Live> {
  yield* names
}

export async function keysOf(blobs: BlobStore, prefix = ''): Promise<string[]> {
  const keys: string[] = []
  for await (const key of blobs.list(prefix)) keys.push(key)
  return keys
}
