/**
 * What a chunk size costs and saves on real disk images: `node bench/chunk-size.ts`, with IMPRINT_BENCH_IMAGES naming a folder
 * that has base.raw, web-v1.raw, web-v2.raw and web-v1b.raw. Prints the tables of docs/decisions/chunk-size.md.
 */
import { hash } from 'node:crypto'
import { createReadStream, mkdtempSync, rmSync, statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { KiB, MiB } from '../src/base/units.ts'
import { FsBlobStore } from '../src/store/blobs/fs/fs-blob-store.ts'
import { SqliteChunkIndex } from '../src/store/chunks/index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from '../src/store/chunks/open.ts'

const folder = process.env.IMPRINT_BENCH_IMAGES
if (!folder) throw new Error('set IMPRINT_BENCH_IMAGES to the folder of base.raw, web-v1.raw, web-v2.raw and web-v1b.raw')
const images = ['base', 'web-v1', 'web-v2', 'web-v1b'].map((name) => join(folder, `${name}.raw`))
const RANDOM_READS = 2000
const SAMPLE = 8 // every eighth new chunk goes into the table of compression

const mb = (bytes: number) => (bytes / 1e6).toFixed(1)
const row = (...cells: (string | number)[]) => console.log(`| ${cells.join(' | ')} |`)

/** The same places on each run. */
function* places(count: number, limit: number): Generator<number> {
  let state = 12345
  for (let index = 0; index < count; index += 1) {
    state = (state * 1103515245 + 12345) % 2 ** 31
    yield Math.floor((state / 2 ** 31) * limit)
  }
}

async function measureStore(chunkBytes: number): Promise<void> {
  const temporary = mkdtempSync(join(tmpdir(), 'imprint-chunk-size-'))
  const blobs = await FsBlobStore.open(join(temporary, 'blobs'))
  const index = await SqliteChunkIndex.open(join(temporary, 'index.db'))
  const store = await openChunkStore({ blobs, index, chunkBytes })
  try {
    const cpu = process.cpuUsage()
    let last = ''
    for (const image of images) {
      const { manifest, lease } = await store.ingest(createReadStream(image, { highWaterMark: 256 * KiB }), { owner: 'bench' })
      await lease.release()
      last = manifest
    }
    const { user, system } = process.cpuUsage(cpu)
    let blobBytes = 0
    for await (const key of blobs.list('')) blobBytes += await blobs.size(key)
    const source = await store.open(last)
    const data: { offset: number; length: number }[] = []
    for await (const extent of source.extents(0, source.size)) if (extent.kind === 'data') data.push(extent)
    const dataBytes = data.reduce((sum, { length }) => sum + length, 0)
    const before = (await store.stats()).counters.bytesRead
    const start = performance.now()
    for (let at of places(RANDOM_READS, dataBytes - 4 * KiB)) {
      const extent = data.find(({ length }) => {
        if (at < length) return true
        at -= length
        return false
      })
      if (extent) await source.read(Math.floor((extent.offset + at) / (4 * KiB)) * 4 * KiB, 4 * KiB)
    }
    const readMs = (performance.now() - start) / RANDOM_READS
    const { chunks, counters } = await store.stats()
    row(
      `${chunkBytes / KiB} KiB`,
      mb(blobBytes),
      chunks,
      mb(statSync(join(temporary, 'index.db')).size + statSync(join(temporary, 'index.db-wal')).size),
      ((user + system) / 1e6).toFixed(1),
      `${((counters.bytesRead - before) / RANDOM_READS / KiB).toFixed(0)} KiB`,
      readMs.toFixed(2),
    )
  } finally {
    await store.close()
    await blobs.close()
    rmSync(temporary, { recursive: true })
  }
}

/** New chunks of all images in the order in which they come. */
async function newChunks(chunkBytes: number): Promise<Buffer[]> {
  const seen = new Set<string>()
  const sample: Buffer[] = []
  for (const image of images) {
    const file = await open(image)
    const block = Buffer.alloc(MiB)
    for (let offset = 0; ; offset += MiB) {
      const { bytesRead } = await file.read(block, 0, MiB, offset)
      if (bytesRead === 0) break
      for (let at = 0; at < bytesRead; at += chunkBytes) {
        const chunk = block.subarray(at, Math.min(at + chunkBytes, bytesRead))
        if (chunk.every((byte) => byte === 0)) continue
        const name = hash('sha256', chunk, 'base64')
        if (seen.has(name)) continue
        seen.add(name)
        if (Math.floor(seen.size / 4) % SAMPLE === 0) sample.push(Buffer.from(chunk)) // four neighbours together
      }
    }
    await file.close()
  }
  return sample
}

function measureCompression(name: string, chunks: readonly Buffer[], level: number, dictionary?: Buffer, minMatch = 0): void {
  const options = {
    params: { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_minMatch]: minMatch },
    ...(dictionary ? { dictionary } : {}),
  }
  const plainBytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
  let start = process.cpuUsage().user
  const frames = chunks.map((chunk) => zstdCompressSync(chunk, options))
  const compressSeconds = (process.cpuUsage().user - start) / 1e6
  start = process.cpuUsage().user
  for (const frame of frames) zstdDecompressSync(frame, dictionary ? { dictionary } : {})
  const decompressSeconds = (process.cpuUsage().user - start) / 1e6
  const stored = frames.reduce((sum, frame, index) => sum + Math.min(frame.length, chunks[index]!.length), 0)
  row(
    name,
    `${((100 * stored) / plainBytes).toFixed(2)}%`,
    (plainBytes / 1e6 / compressSeconds).toFixed(0),
    (plainBytes / 1e6 / decompressSeconds).toFixed(0),
  )
}

row('chunk', 'stored, MB', 'index entries', 'index, MB', 'CPU s for four', 'unpacked a 4 KiB read', 'ms a read')
row('---', '---', '---', '---', '---', '---', '---')
for (const chunkBytes of [16, 32, 64, 128, 256]) await measureStore(chunkBytes * KiB)

const sample = await newChunks(64 * KiB)
const groups = Array.from({ length: Math.ceil(sample.length / 4) }, (_, index) =>
  Buffer.concat(sample.slice(index * 4, index * 4 + 4)),
)
/** Raw content: pieces from all over the first chunks, which a later chunk may resemble. */
const dictionary = Buffer.concat(
  sample.filter((_, index) => index % Math.ceil(sample.length / 56) === 0).map((chunk) => chunk.subarray(0, 2 * KiB)),
)
console.log(`\n${sample.length} new chunks of 64 KiB, one group of four in ${SAMPLE}; dictionary of ${dictionary.length} bytes`)
row('way', 'of plain', 'compress MB/s', 'unpack MB/s')
row('---', '---', '---', '---')
for (const level of [1, 3, 4, 5, 6]) measureCompression(`64 KiB, level ${level}`, sample, level)
measureCompression('64 KiB, level 3, matches from 4 bytes', sample, 3, undefined, 4)
measureCompression('64 KiB, level 3, dictionary', sample, 3, dictionary)
measureCompression('groups of 4 × 64 KiB, level 3', groups, 3)
