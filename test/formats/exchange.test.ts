/**
 * Disks out of every writer, read by qemu-img and by us; and out of qemu-img, in all ways it writes a format, read by us. Contents, size
 * and what is allocated are compared. `FORMAT_IMAGES=5000` makes more of them; `FORMAT_FIRST=2001` begins at a later one, so that
 * a long run can be made in parts.
 */
import assert from 'node:assert/strict'
import { createWriteStream } from 'node:fs'
import { rm } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import type { BlockSource } from '../../src/disk/block/block-source.ts'
import { openFileSource } from '../../src/disk/block/file-source.ts'
import {
  diskFormats,
  formatNamed,
  formats,
  openImage,
  recognise,
  verifyDeclared,
  writerOf,
} from '../../src/disk/formats/index.ts'
import { assertExtentsAreTrue, randomDisk, seeded, writeSource } from '../fixtures/disk/disks.ts'
import { lacking, run, scratch } from '../fixtures/disk/tools.ts'

const IMAGES = Number(process.env.FORMAT_IMAGES ?? 12)
const FIRST = Number(process.env.FORMAT_FIRST ?? 1)
const skip = lacking('qemu-img')
const KiB = 1024
const MiB = 1024 * KiB
/** Of larger disks, holes are not read: qemu-img has compared all of it. */
const WALKED_BYTES = 64 * MiB
/** Of no format's own size, so that pieces begin and end inside of what the format is made of. */
const PIECE_BYTES = 133_333
const PIECES = 16
/** Where QEMU has another name than Glance. */
const qemuNames: Readonly<Record<string, string>> = { vhd: 'vpc', ploop: 'parallels' }
const qemuName = (format: string): string => qemuNames[format] ?? format
/** Formats that `qemu-img check` knows. */
const checked: readonly string[] = ['qcow2', 'vdi', 'vhdx', 'qed', 'ploop', 'vmdk']

interface Made {
  readonly disk: BlockSource
  readonly seed: number
}
/** The largest of a hundred disks, by their numbers; the others are small, most of them below a mebibyte. */
const largestOf = (seed: number): number => {
  if (seed % 100 === 7) return 5000 * MiB
  if (seed % 12 === 5) return 40 * MiB
  return [64 * KiB, MiB, MiB, 9 * MiB][seed % 4]!
}
/** Small disks mostly; some large and sparse, some of odd sizes, some with nothing in them. */
function* disks(count: number): Generator<Made> {
  for (let seed = FIRST; seed < FIRST + count; seed += 1) {
    const random = seeded(seed)
    const size = Math.max(512, Math.floor((random() * largestOf(seed)) / 512) * 512)
    yield { seed, disk: randomDisk(size, Math.floor(random() * 9), seed) }
  }
}

interface Extent {
  readonly offset: number
  readonly length: number
}
/** Stretches that are data, joined. */
async function dataOf(source: BlockSource): Promise<readonly Extent[]> {
  const found: { offset: number; length: number }[] = []
  for await (const { kind, offset, length } of source.extents(0, source.size)) {
    const last = found.at(-1)
    if (kind !== 'data') continue
    if (last && last.offset + last.length === offset) last.length += length
    else found.push({ offset, length })
  }
  return found
}
interface Judgement {
  /** What `qemu-img compare` printed. */
  readonly said: string
  /** Of `qemu-img check`; none where it does not know the format. */
  readonly faults: { readonly corruptions?: number; readonly leaks?: number }
  /** What it calls data, joined. */
  readonly data: readonly Extent[]
}
/** All that qemu-img says of a file, by one process of ours: with thousands of disks, starting processes is what takes the time. */
async function judgedByQemu(format: string, path: string, raw: string): Promise<Judgement> {
  const asked = [
    'qemu-img compare -f raw -F "$1" "$2" "$3"',
    checked.includes(format) ? 'qemu-img check -f "$1" --output=json "$3"' : 'echo "{}"',
    'qemu-img map -f "$1" --output=json "$3"',
  ]
  const script = `set -e; ${asked.join('; printf "\\036"; ')}`
  const printed = await run('sh', '-c', script, 'sh', qemuName(format), raw, path)
  const [said = '', faults = '', map = ''] = printed.split('\x1e')
  return { said, faults: JSON.parse(faults), data: dataIn(JSON.parse(map)) }
}
function dataIn(map: readonly { readonly start: number; readonly length: number; readonly data: boolean }[]): readonly Extent[] {
  const found: { offset: number; length: number }[] = []
  for (const { start, length, data } of map) {
    const last = found.at(-1)
    if (!data) continue
    if (last && last.offset + last.length === start) last.length += length
    else found.push({ offset: start, length })
  }
  return found
}

const holds = (outer: Extent, inner: Extent): boolean =>
  inner.offset >= outer.offset && inner.offset + inner.length <= outer.offset + outer.length
/** QEMU calls all of a VHDX and of what is fixed data, and of a raw file what the file system says: then ours may only say less. */
const saysAllocation = (format: string, disk: BlockSource, [first]: readonly Extent[]): boolean =>
  !['raw', 'vhdx'].includes(format) && first?.length !== disk.size

/** The disk of a file, as the service takes it in: recognised, declared, every table walked. */
async function opened(format: string, path: string): Promise<BlockSource> {
  const file = await openFileSource(path)
  const recognition = await recognise(file)
  const isDeclarable = (diskFormats as readonly string[]).includes(format)
  if (isDeclarable) verifyDeclared(format, recognition, 'bare')
  else
    assert.deepEqual(
      recognition.found.map(({ name }) => name),
      [format],
    )
  await formatNamed(format).audit(file)
  return openImage(format, file)
}

async function compare(format: string, path: string, raw: string, made: Made, size: number): Promise<void> {
  const what = `disk ${made.seed}`
  const { said, faults, data: theirs } = await judgedByQemu(format, path, raw)
  const sizes = size === made.disk.size ? '' : 'Warning: Image size mismatch!\n'
  assert.equal(said, `${sizes}Images are identical.\n`, what)
  assert.deepEqual([faults.corruptions ?? 0, faults.leaks ?? 0], [0, 0], what)
  const disk = await opened(format, path)
  try {
    assert.equal(disk.size, size, what)
    if (size < WALKED_BYTES) await assertExtentsAreTrue(disk)
    const ours = await dataOf(disk)
    if (saysAllocation(format, disk, theirs)) assert.deepEqual(ours, theirs, `${what}: what is allocated`)
    else
      for (const extent of ours)
        assert.ok(
          theirs.some((other) => holds(other, extent)),
          `${what}: ${JSON.stringify(extent)}`,
        )
    await assertSameBytes(disk, made, what)
  } finally {
    await disk.close()
  }
}

async function assertSameBytes(disk: BlockSource, made: Made, what: string): Promise<void> {
  const bytes = await openImage('raw', made.disk)
  for await (const { offset, length } of bytes.extents(0, bytes.size)) {
    for (let at = offset; at < offset + length; at += 4 * MiB) {
      const count = Math.min(4 * MiB, offset + length - at)
      assert.equal(Buffer.compare(await disk.read(at, count), await bytes.read(at, count)), 0, `${what} at ${at}`)
    }
    if (offset > WALKED_BYTES) break
  }
}

/** Any range that is asked for is what the whole file has there: odd pieces from front to back of a small file, some of a larger one. */
async function assertSameByPieces(wrapped: BlockSource, path: string, seed: number): Promise<void> {
  const random = seeded(seed)
  const file = await openFileSource(path)
  try {
    assert.equal(file.size, wrapped.size)
    const step = wrapped.size <= 2 * MiB ? PIECE_BYTES : Math.ceil(wrapped.size / PIECES)
    for (let from = 0; from < wrapped.size; from += step) {
      const at = step === PIECE_BYTES ? from : Math.floor(random() * wrapped.size)
      const length = Math.min(PIECE_BYTES, wrapped.size - at)
      const [ours, theirs] = [await wrapped.read(at, length), await file.read(at, length)]
      assert.equal(Buffer.compare(ours, theirs), 0, `disk ${seed}: ${length} bytes from ${at}, by pieces or whole`)
    }
  } finally {
    await file.close()
  }
}

for (const { name, writers } of formats.filter((each) => each.writers.length > 0)) {
  for (const { subformat } of writers) {
    test(`${IMAGES} disks as ${name} (${subformat}) are the same to qemu-img`, { skip }, async (t) => {
      const path = await scratch(t)
      for (const made of disks(IMAGES)) {
        const [raw, file] = [path(`${made.seed}.raw`), path(`${made.seed}.made.${name}`)]
        await writeSource(made.disk, raw)
        const writer = writerOf(name, subformat)
        if ('wrap' in writer) {
          const wrapped = await writer.wrap(made.disk)
          await writeSource(wrapped, file)
          await assertSameByPieces(wrapped, file, made.seed)
        } else await pipeline(Readable.from(writer.pack(made.disk)), createWriteStream(file))
        const size = subformat === 'azure' ? Math.ceil(made.disk.size / MiB) * MiB : made.disk.size
        await compare(name, file, raw, made, size)
        await rm(raw)
        await rm(file)
      }
    })
  }
}

/** Ways in which qemu-img writes a format. */
const ways: readonly (readonly [string, string, ...(readonly string[])])[] = [
  ['qcow2', ''],
  ['qcow2', 'cluster_size=512'],
  ['qcow2', 'cluster_size=2M'],
  ['qcow2', 'compat=0.10'],
  ['qcow2', 'extended_l2=on'],
  ['qcow2', '', '-c'],
  ['qcow2', 'compression_type=zstd', '-c'],
  ['qcow2', 'preallocation=metadata'],
  ['vmdk', ''],
  ['vmdk', 'subformat=streamOptimized'],
  ['vmdk', 'zeroed_grain=on'],
  ['vhd', 'force_size=on'],
  ['vhd', 'subformat=fixed,force_size=on'],
  ['vhd', ''],
  ['vhdx', ''],
  ['vhdx', 'subformat=fixed'],
  ['vhdx', 'block_size=1M'],
  ['vdi', ''],
  ['vdi', 'static=on'],
  ['qed', ''],
  ['ploop', ''],
]
for (const [format, options, ...flags] of ways.filter(([format]) => formats.some(({ name }) => name === format))) {
  const count = Math.max(8, Math.floor(IMAGES / 3))
  test(`${count} disks by qemu-img as ${format} ${options} ${flags.join(' ')} are the same to us`, { skip }, async (t) => {
    const path = await scratch(t)
    for (const made of disks(count)) {
      const [raw, file] = [path(`${made.seed}.raw`), path(`${made.seed}.made.${format}`)]
      await writeSource(made.disk, raw)
      const how = options === '' ? [] : ['-o', options]
      await run('qemu-img', 'convert', ...flags, '-f', 'raw', '-O', qemuName(format), ...how, raw, file)
      const info = JSON.parse(await run('qemu-img', 'info', '-f', qemuName(format), '--output=json', file))
      await compare(format, file, raw, made, info['virtual-size'])
      await rm(raw)
      await rm(file)
    }
  })
}
