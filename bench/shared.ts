/**
 * The same disk put in as a file of each plain format: what the store takes for each beyond what it has by then.
 *
 *   node bench/shared.ts [disk.raw]
 *
 * Files by our writers and, where it is there, by `qemu-img convert`. Without a disk, one of 1 GiB with 384 MiB of data is made.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BlockSource } from '../src/disk/block/block-source.ts'
import { openFileSource } from '../src/disk/block/file-source.ts'
import { memorySource } from '../src/disk/block/memory-source.ts'
import { formats, wrapDisk } from '../src/disk/formats/index.ts'
import { FsBlobStore } from '../src/store/blobs/fs/fs-blob-store.ts'
import { SqliteChunkIndex } from '../src/store/chunks/index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from '../src/store/chunks/open.ts'
import { patterned } from '../test/fixtures/disk/disks.ts'
import { lacking, run } from '../test/fixtures/disk/tools.ts'

const MiB = 2 ** 20
const [given] = process.argv.slice(2)
const folder = await mkdtemp(join(tmpdir(), 'imprint-shared-'))
const blobs = await FsBlobStore.open(join(folder, 'blobs'))
const chunks = await openChunkStore({ blobs, index: await SqliteChunkIndex.open(join(folder, 'index.db')), workers: 2 })
try {
  const disk = given === undefined ? madeDisk() : await openFileSource(given)
  let before = 0
  let first = 0
  const put = async (what: string, file: BlockSource) => {
    const { lease } = await chunks.ingest(streamOf(file), { owner: 'bench' })
    await lease.release()
    const { storedBytes } = await chunks.stats()
    first ||= storedBytes
    const share = (((storedBytes - before) / first) * 100).toFixed(2)
    console.log(
      `${what.padEnd(24)} ${(file.size / MiB).toFixed(1).padStart(9)} MiB  ${((storedBytes - before) / MiB).toFixed(2).padStart(8)} MiB stored ${share.padStart(7)} %`,
    )
    before = storedBytes
  }
  for (const format of ['raw', ...formats.map(({ name }) => name).filter((name) => name !== 'raw')]) {
    const { writers } = formats.find(({ name }) => name === format)!
    for (const writer of writers) {
      if ('wrap' in writer) await put(`${format} ${writer.subformat}`, await wrapDisk(format, disk, writer.subformat))
    }
  }
  if (given !== undefined && !lacking('qemu-img')) {
    for (const [format, name] of Object.entries({ qcow2: 'qcow2', vmdk: 'vmdk', vhd: 'vpc', vhdx: 'vhdx', vdi: 'vdi' })) {
      const path = join(folder, `by-qemu.${format}`)
      await run('qemu-img', 'convert', '-f', 'raw', '-O', name, given, path)
      await put(`${format} by qemu-img`, await openFileSource(path))
      await rm(path)
    }
  }
} finally {
  await chunks.close()
  await blobs.close()
  await rm(folder, { recursive: true, force: true })
}

async function* streamOf(file: BlockSource): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < file.size; at += MiB) yield await file.read(at, Math.min(MiB, file.size - at))
}

function madeDisk(): BlockSource {
  const pieces = Array.from({ length: 48 }, (_, index) => ({
    offset: index * 20 * MiB + index * 4096,
    bytes: patterned(8 * MiB, index, index % 2 ? 'text' : 'random'),
  }))
  return memorySource(1024 * MiB, pieces)
}
