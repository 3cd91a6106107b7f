/**
 * Our qcow2 beside that of `@xen-orchestra/qcow2`, which is TypeScript too: in one process, in turn, over the same file. All data of the disk
 * are read; and all bytes of a new qcow2 of it are made, and thrown away. Prints medians, and their ratio: above 1 is in our favour.
 *
 *   node bench/xen-orchestra.ts [--disk FILE] [--rounds N]
 *
 * The package is fetched from the registry into a temporary folder, with one that it needs and does not say. It reads no compressed clusters. Without a disk, one of 2 GiB with 700 MiB of data is made.
 */
import { type FileHandle, mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { GiB, MiB } from '../src/base/units.ts'
import { piecesOf } from '../src/cli/disk-file/pieces.ts'
import { openFileSource } from '../src/disk/block/file-source.ts'
import { memorySource } from '../src/disk/block/memory-source.ts'
import { openImage, wrapDisk } from '../src/disk/formats/index.ts'
import { patterned, writeSource } from '../test/fixtures/disk/disks.ts'
import { run } from '../test/fixtures/disk/tools.ts'

interface TheirDisk {
  init(): Promise<void>
  diskBlocks(): AsyncGenerator<{ readonly data: Uint8Array }>
  close(): Promise<void>
}
interface Theirs {
  readonly QCowAccessor: new (accessor: object, path: string) => TheirDisk
  readonly toQcow2Stream: (disk: TheirDisk, options: object) => AsyncIterable<Uint8Array>
}
/** What they read files through. */
const accessor = {
  openFile: (path: string) => open(path),
  closeFile: (file: FileHandle) => file.close(),
  read: (file: FileHandle, buffer: Uint8Array, at: number) => file.read(buffer, 0, buffer.length, at),
}

const { values } = parseArgs({ options: { disk: { type: 'string' }, rounds: { type: 'string', default: '5' } } })
const folder = await mkdtemp(join(tmpdir(), 'imprint-bench-'))
const path = (name: string) => join(folder, name)
const signal = new AbortController().signal

try {
  const raw = values.disk ?? path('disk.raw')
  if (!values.disk) {
    const pieces = Array.from({ length: 64 }, (_, index) => ({
      offset: index * 31 * MiB + index * 4096,
      bytes: patterned(11 * MiB, index, index % 2 ? 'text' : 'random'),
    }))
    await writeSource(memorySource(2 * GiB, pieces), raw)
  }
  const file = path('disk.qcow2')
  await run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, file)
  await run(
    'npm',
    'install',
    '--prefix',
    folder,
    '--no-audit',
    '--no-fund',
    '--silent',
    '@xen-orchestra/qcow2@1.3.1',
    '@vates/read-chunk',
  )
  const theirs = (await import(path('node_modules/@xen-orchestra/qcow2/dist/index.mjs'))) as Theirs

  const works = {
    'read, ours': async () => {
      const disk = await openImage('qcow2', await openFileSource(file))
      const buffer = new Uint8Array(MiB)
      let bytes = 0
      for await (const { kind, offset, length } of piecesOf(disk, signal)) {
        if (kind === 'data') bytes += (await disk.read(offset, length, buffer.subarray(0, length))).length
      }
      await disk.close()
      return bytes
    },
    'read, theirs': async () => {
      const disk = new theirs.QCowAccessor(accessor, file)
      await disk.init()
      let bytes = 0
      for await (const { data } of disk.diskBlocks()) bytes += data.length
      await disk.close()
      return bytes
    },
    'write, ours': async () => {
      const made = await wrapDisk('qcow2', await openImage('qcow2', await openFileSource(file)))
      const buffer = new Uint8Array(MiB)
      for (let at = 0; at < made.size; at += MiB) {
        const length = Math.min(MiB, made.size - at)
        await made.read(at, length, buffer.subarray(0, length))
      }
      await made.close()
      return made.size
    },
    'write, theirs': async () => {
      const disk = new theirs.QCowAccessor(accessor, file)
      await disk.init()
      let bytes = 0
      for await (const piece of theirs.toQcow2Stream(disk, { signal })) bytes += piece.length
      await disk.close()
      return bytes
    },
  }
  const took = new Map<string, { seconds: number[]; bytes: number }>()
  for (let round = 0; round < Number(values.rounds); round += 1) {
    for (const [name, work] of Object.entries(works)) {
      const begun = performance.now()
      const bytes = await work()
      const entry = took.get(name) ?? { seconds: [], bytes }
      entry.seconds.push((performance.now() - begun) / 1000)
      took.set(name, entry)
    }
  }
  console.log(`${process.version}, ${values.rounds} rounds, medians`)
  const median = (name: string) => took.get(name)!.seconds.toSorted((a, b) => a - b)[Math.floor(Number(values.rounds) / 2)]!
  for (const what of ['read', 'write']) {
    const [ours, others] = [median(`${what}, ours`), median(`${what}, theirs`)]
    const bytes = [took.get(`${what}, ours`)!.bytes, took.get(`${what}, theirs`)!.bytes].map(
      (each) => `${(each / MiB).toFixed(0)} MiB`,
    )
    console.log(
      `${what.padEnd(6)} ours ${ours.toFixed(2)} s (${bytes[0]}), theirs ${others.toFixed(2)} s (${bytes[1]}): ${(others / ours).toFixed(2)}`,
    )
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}
