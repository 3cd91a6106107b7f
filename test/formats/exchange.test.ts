/**
 * Disks out of every writer, read by qemu-img and by us; and out of qemu-img, in all ways it writes a format, read by us. Contents, size
 * and what is allocated are compared. `FORMAT_IMAGES=5000` makes more of them.
 */
import assert from 'node:assert/strict'
import { createWriteStream } from 'node:fs'
import { rm } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
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
import { assertExtentsAreTrue, digestOf, randomDisk, seeded, writeSource } from '../fixtures/disk/disks.ts'
import { lacking, run, scratch } from '../fixtures/disk/tools.ts'

const IMAGES = Number(process.env.FORMAT_IMAGES ?? 12)
const skip = lacking('qemu-img')
const KiB = 1024
const MiB = 1024 * KiB
/** Of larger disks, holes are not read: qemu-img has compared all of it. */
const WALKED_BYTES = 64 * MiB
/** Where QEMU has another name than Glance. */
const qemuNames: Readonly<Record<string, string>> = { vhd: 'vpc', ploop: 'parallels' }
const qemuName = (format: string): string => qemuNames[format] ?? format
/** Formats that `qemu-img check` knows. */
const checked: readonly string[] = ['qcow2', 'vdi', 'vhdx', 'qed', 'ploop', 'vmdk']

interface Made {
  readonly disk: BlockSource
  readonly seed: number
}
/** Small disks mostly; some large and sparse, some of odd sizes, some with nothing in them. */
function* disks(count: number): Generator<Made> {
  for (let seed = 1; seed <= count; seed += 1) {
    const random = seeded(seed)
    const largest = [64 * KiB, MiB, 9 * MiB, 40 * MiB, 5000 * MiB][Math.floor(random() * 5)]!
    const size = Math.max(512, Math.floor((random() * largest) / 512) * 512)
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
/** The same, as QEMU says: what it calls data. */
async function dataByQemu(format: string, path: string): Promise<readonly Extent[]> {
  const map = JSON.parse(await run('qemu-img', 'map', '-f', qemuName(format), '--output=json', path)) as readonly {
    readonly start: number
    readonly length: number
    readonly data: boolean
  }[]
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

async function compare(t: TestContext, format: string, path: string, raw: string, made: Made, size: number): Promise<void> {
  const what = `disk ${made.seed}`
  const said = await run('qemu-img', 'compare', '-f', 'raw', '-F', qemuName(format), raw, path)
  const sizes = size === made.disk.size ? '' : 'Warning: Image size mismatch!\n'
  assert.equal(said, `${sizes}Images are identical.\n`, what)
  if (checked.includes(format)) {
    const { corruptions = 0, leaks = 0 } = JSON.parse(
      await run('qemu-img', 'check', '-f', qemuName(format), '--output=json', path),
    )
    assert.deepEqual([corruptions, leaks], [0, 0], what)
  }
  const disk = await opened(format, path)
  t.after(() => disk.close())
  assert.equal(disk.size, size, what)
  if (size < WALKED_BYTES) await assertExtentsAreTrue(disk)
  const [ours, theirs] = [await dataOf(disk), await dataByQemu(format, path)]
  if (saysAllocation(format, disk, theirs)) assert.deepEqual(ours, theirs, `${what}: what is allocated`)
  else
    for (const extent of ours)
      assert.ok(
        theirs.some((other) => holds(other, extent)),
        `${what}: ${JSON.stringify(extent)}`,
      )
  const bytes = await openImage('raw', made.disk)
  for await (const { offset, length } of bytes.extents(0, bytes.size)) {
    for (let at = offset; at < offset + length; at += 4 * MiB) {
      const count = Math.min(4 * MiB, offset + length - at)
      assert.equal(Buffer.compare(await disk.read(at, count), await bytes.read(at, count)), 0, `${what} at ${at}`)
    }
    if (offset > WALKED_BYTES) break
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
          const isSmall = wrapped.size < WALKED_BYTES
          if (isSmall)
            assert.equal(await digestOf(wrapped, 333_333), await digestOf(await openFileSource(file)), 'by pieces or whole')
        } else await pipeline(Readable.from(writer.pack(made.disk)), createWriteStream(file))
        const size = subformat === 'azure' ? Math.ceil(made.disk.size / MiB) * MiB : made.disk.size
        await compare(t, name, file, raw, made, size)
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
      await compare(t, format, file, raw, made, info['virtual-size'])
      await rm(raw)
      await rm(file)
    }
  })
}
