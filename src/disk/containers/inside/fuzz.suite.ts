import { crc32, gzipSync } from 'node:zlib'
import { Misuse } from '../../../../test/fixtures/fuzz/mutant-file.ts'
import { type Field, type FuzzBase, type FuzzTarget, fuzzTarget } from '../../../../test/fixtures/fuzz/target.ts'
import { isServiceError } from '../../../base/errors.ts'
import { checked } from '../../block/checked.ts'
import { bytesSource } from '../../block/memory-source.ts'
import { recognise } from '../../formats/index.ts'
import { oldSparse, smallTar, smallZip } from '../archives/small-archives.suite.ts'
import { lookInside } from './look-inside.ts'

const BLOCK = 512
const MAX_KEPT_BYTES = 1024 * 1024
const MAX_EXTENTS = 1000
const MAX_LAYERS = 4

/** With the partition table of a disk. */
const disk = Buffer.alloc(2048, 'disk')
disk.set([0x80, 0, 2, 0, 0x83, 0, 9, 0, 1, 0, 0, 0, 3, 0, 0, 0], 446)
disk.set([0x55, 0xaa], 510)
disk.fill(0, 0, 446)
disk.fill(0, 462, 510)
const descriptor = Buffer.from('# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 4 FLAT "flat.vmdk" 0\n')
/** As it is, in one block: what is changed in it comes out. */
const stored = (bytes: Uint8Array): Buffer => gzipSync(bytes, { level: 0 })
const STORED_AT = 15 // behind the header of gzip and that of the block
const inTar = (name: string, body: Uint8Array): Buffer => smallTar([{ name, body }])
const inZip = (name: string, body: Uint8Array): Buffer => smallZip([{ name, body }])

const files: readonly Buffer[] = [
  inTar('disk.raw', disk),
  inZip('disk.tar', inTar('disk.raw', disk)),
  inTar('a.zip', inZip('b.tar', inTar('disk.img', disk))),
  stored(inTar('disk.raw', disk)),
  stored(oldSparse(2 ** 30, [[0, 2048]], disk)),
  inTar('disk.raw.gz', stored(disk)),
  inZip('box.tar.gz', stored(inTar('disk.raw.gz', stored(disk)))),
  smallTar([
    { name: 'box/disk.vmdk', body: descriptor },
    { name: 'box/flat.vmdk', body: disk },
    { name: 'box/readme', body: 'text' },
  ]),
  smallTar([
    { name: 'a', body: 'text' },
    { name: 'b', body: disk },
  ]),
]

/** The fields of all headers, however deep; sums of tar and of a gzip around everything are made right again. */
function baseOf(bytes: Buffer): FuzzBase {
  const tars = placesOf(bytes, 'ustar').map((at) => at - 257)
  const zips = ['PK\x03\x04', 'PK\x01\x02', 'PK\x05\x06'].flatMap((magic) => placesOf(bytes, magic))
  const gzips = placesOf(bytes, '\x1f\x8b\x08')
  const fields = [
    ...tars.flatMap((at): Field[] => [
      [at, 8],
      [at + 124, 8],
      [at + 134, 1],
      [at + 156, 1],
    ]),
    ...zips.flatMap((at): Field[] => [8, 18, 20, 24, 42].map((field) => [at + field, 2])),
    ...gzips.flatMap((at): Field[] => [
      [at, 4],
      [at + 3, 1],
    ]),
  ].filter(([at, width]) => at + width <= bytes.length)
  const isPacked = gzips.includes(0)
  return {
    bytes,
    isLittleEndian: true,
    fields,
    regions: [...[...tars, ...zips, ...gzips].map((at) => [at, 60] as const), [0, bytes.length]],
    seal({ bytes: mutant, keep }) {
      for (const at of tars.filter((each) => each + BLOCK <= mutant.length)) {
        keep(at + 148, 8)
        const header = Buffer.from(mutant.buffer, mutant.byteOffset + at, BLOCK)
        header.fill(' ', 148, 156)
        const sum = header.reduce((total, byte) => total + byte, 0)
        header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
      }
      if (!isPacked || mutant.length < bytes.length) return
      keep(mutant.length - 8, 4)
      const sum = crc32(mutant.subarray(STORED_AT, mutant.length - 8))
      new DataView(mutant.buffer, mutant.byteOffset, mutant.length).setUint32(mutant.length - 8, sum, true)
    },
  }
}
function placesOf(bytes: Buffer, magic: string): number[] {
  const found: number[] = []
  for (let at = bytes.indexOf(magic, 0, 'latin1'); at >= 0; at = bytes.indexOf(magic, at + 1, 'latin1')) found.push(at)
  return found
}

async function kept(bytes: AsyncIterable<Uint8Array>) {
  const pieces: Uint8Array[] = []
  let count = 0
  for await (const piece of bytes) {
    count += piece.length
    if (count > MAX_KEPT_BYTES) throw new Misuse(`${count} bytes to be kept, where ${MAX_KEPT_BYTES} are the limit`)
    pieces.push(Uint8Array.from(piece))
  }
  return bytesSource(Buffer.concat(pieces))
}

export const targets: readonly FuzzTarget[] = [
  fuzzTarget({
    name: 'inside',
    bases: files.map(baseOf),
    values: [...[...'01xgLS'].map((each) => each.charCodeAt(0)), 0x8b1f, 0x4b50, 0x685a42, 0xfd2fb528],
    leastTaken: 5,
    async use(file) {
      const options = { recognise, keep: kept, maxBytes: MAX_KEPT_BYTES, choosing: '--member NAME' }
      const inside = await lookInside(file, options).catch((error: unknown) => {
        if (!isServiceError(error, 'too-large')) throw error
      })
      if (!inside) return
      if (inside.layers.length > MAX_LAYERS) throw new Misuse(`${inside.layers.length} layers`)
      for (const each of [inside.file, ...(inside.parts?.values() ?? [])]) {
        const source = checked(each, 'inside')
        const end = Math.min(source.size, 5000)
        await source.read(0, end)
        await source.read(source.size - end, end)
        let extents = 0
        for await (const _ of source.extents(0, source.size)) {
          extents += 1
          if (extents > MAX_EXTENTS) throw new Misuse('no end of extents')
        }
      }
      await inside.appliance?.verify()
      await inside.file.close()
    },
  }),
]
