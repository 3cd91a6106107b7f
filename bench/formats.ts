/**
 * Our lenses against `qemu-img convert`, file to file, same disk, same run. Prints medians and their ratio, and how fast the
 * lenses are over memory alone.
 *
 *   node bench/formats.ts [disk.raw] [rounds]
 *
 * Without a disk, one of 1 GiB with 384 MiB of data is made: half noise, half text.
 */
import { mkdtemp, open, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BlockSource } from '../src/disk/block/block-source.ts'
import { checked } from '../src/disk/block/checked.ts'
import { openFileSource } from '../src/disk/block/file-source.ts'
import { memorySource } from '../src/disk/block/memory-source.ts'
import { openImage, wrapDisk } from '../src/disk/formats/index.ts'
import { patterned, writeSource } from '../test/fixtures/disk/disks.ts'
import { run } from '../test/fixtures/disk/tools.ts'

const MiB = 1024 * 1024
const STEP_BYTES = MiB
const READS_AHEAD = 4
const [given, rounds = '5'] = process.argv.slice(2)

const seconds = async (work: () => Promise<unknown>): Promise<number> => {
  const from = process.hrtime.bigint()
  await work()
  return Number(process.hrtime.bigint() - from) / 1e9
}
const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

const madeDisk = (): BlockSource =>
  memorySource(
    1024 * MiB,
    Array.from({ length: 48 }, (_, index) => ({
      offset: index * 20 * MiB + index * 4096,
      bytes: patterned(8 * MiB, index, index % 2 ? 'text' : 'random'),
    })),
  )

/** Reads all data, some of it ahead, and writes it where it belongs. */
async function copy(source: BlockSource, path: string): Promise<void> {
  await rm(path, { force: true }) // qemu-img too begins with an empty file
  const file = await open(path, 'w')
  await file.truncate(source.size)
  const inFlight = new Set<Promise<unknown>>()
  for await (const { kind, offset, length } of source.extents(0, source.size)) {
    if (kind !== 'data') continue
    for (let at = offset; at < offset + length; at += STEP_BYTES) {
      const from = at
      const count = Math.min(STEP_BYTES, offset + length - at)
      const job: Promise<unknown> = source
        .read(from, count)
        .then((bytes) => file.write(bytes, 0, count, from))
        .finally(() => inFlight.delete(job))
      inFlight.add(job)
      if (inFlight.size >= READS_AHEAD) await Promise.race(inFlight)
    }
  }
  await Promise.all(inFlight)
  await file.close()
}

async function dataBytesOf(source: BlockSource): Promise<number> {
  let bytes = 0
  for await (const { kind, length } of source.extents(0, source.size)) if (kind === 'data') bytes += length
  return bytes
}

const folder = await mkdtemp(join(tmpdir(), 'imprint-bench-'))
const path = (name: string) => join(folder, name)
try {
  const raw = given ?? path('disk.raw')
  if (!given) await writeSource(madeDisk(), raw)
  const variants = [
    { name: 'qcow2 → raw', options: [] },
    { name: 'qcow2 zlib → raw', options: ['-c'] },
    { name: 'qcow2 zstd → raw', options: ['-c', '-o', 'compression_type=zstd'] },
  ]
  console.log(`${process.version}, ${availableParallelism()} processors, ${rounds} rounds, medians`)
  const compare = async (name: string, ours: () => Promise<unknown>, theirs: () => Promise<unknown>) => {
    const [mine, reference]: [number[], number[]] = [[], []]
    for (let round = 0; round < Number(rounds); round += 1) {
      mine.push(await seconds(ours))
      reference.push(await seconds(theirs))
    }
    const ratio = median(reference) / median(mine)
    console.log(
      `${name.padEnd(20)} ours ${median(mine).toFixed(2)} s   qemu-img ${median(reference).toFixed(2)} s   ratio ${ratio.toFixed(2)}`,
    )
  }

  const convert = (from: string, to: string, ...rest: string[]) => run('qemu-img', 'convert', '-f', from, '-O', to, ...rest)
  for (const [index, { name, options }] of variants.entries()) {
    const image = path(`${index}.qcow2`)
    await convert('raw', 'qcow2', ...options, raw, image)
    const ours = async () => {
      const disk = await openImage('qcow2', await openFileSource(image))
      await copy(disk, path('ours'))
      await disk.close()
    }
    await compare(name, ours, () => convert('qcow2', 'raw', image, path('theirs')))
    await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', path('ours'), path('theirs'))
  }
  const wrapAndCopy = async () => {
    const file = await wrapDisk('qcow2', await openFileSource(raw))
    await copy(file, path('ours.qcow2'))
    await file.close()
  }
  await compare('raw → qcow2', wrapAndCopy, () => convert('raw', 'qcow2', raw, path('theirs.qcow2')))
  await run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', path('ours.qcow2'), raw)

  const pieces = [{ offset: 0, bytes: patterned(256 * MiB, 1) }]
  const memory: BlockSource = {
    ...memorySource(256 * MiB, pieces),
    read: async (at, count) => pieces[0]!.bytes.subarray(at, at + count),
  }
  const file = await wrapDisk('qcow2', memory)
  const disk = await openImage('qcow2', checked(file, 'file'))
  for (const [name, source] of [['wrap, from memory', file] as const, ['open of wrap', disk] as const]) {
    const bytes = await dataBytesOf(source)
    const took: number[] = []
    for (let round = 0; round < Number(rounds); round += 1) {
      took.push(
        await seconds(async () => {
          for (let at = 0; at + STEP_BYTES <= source.size; at += STEP_BYTES) await source.read(at, STEP_BYTES)
        }),
      )
    }
    console.log(`${name.padEnd(20)} ${(bytes / median(took) / 1e9).toFixed(1)} GB/s in reads of 1 MiB`)
  }
} finally {
  await rm(folder, { recursive: true, force: true })
}
