import { Misuse, type MutantFile } from '../../../../test/fixtures/fuzz/mutant-file.ts'
import { type Field, type FuzzBase, type FuzzTarget, fuzzTarget } from '../../../../test/fixtures/fuzz/target.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import type { Archive } from './archive.ts'
import { oldSparse, paxSparse, type Run, smallTar, smallZip } from './small-archives.suite.ts'
import { listTar } from './tar.ts'
import { listZip } from './zip.ts'

const MAX_READS = 200
const MAX_STREAMED_BYTES = 1024 * 1024
const BLOCK = 512
const text = 'disk '.repeat(60)
const members = [
  { name: 'box.ovf', body: text },
  { name: 'disk.vmdk', body: text.repeat(3) },
]
const tars = [
  smallTar(members),
  smallTar([{ name: 'long', type: 'L', body: 'a/long/name\0' }, ...members]),
  smallTar([
    { name: 'pax', type: 'x', body: '12 size=300\n9 path=a\n' },
    { name: 'x', body: text },
  ]),
]
const data = Buffer.alloc(600, 'data')
const few: readonly Run[] = [
  [512, 88],
  [4096, 512],
]
const runs = Array.from({ length: 30 }, (_, at): Run => [at * 1000, 20])
tars.push(oldSparse(8000, few, data), oldSparse(2 ** 34, runs, data))
for (const version of ['0.0', '0.1', '1.0'] as const) tars.push(paxSparse(version, 8000, few, data))
const OLD_SPARSE = 0x53
/** Of the runs in the header, whether more follow, and the size with all holes. */
const sparseFields: readonly Field[] = [
  ...[386, 394, 398, 406, 410, 418, 422, 430, 483, 487].map((at): Field => [at, 8]),
  [482, 1],
]
const zips = [smallZip(members), smallZip(members, { method: 8 })]

async function use(list: (file: MutantFile) => Promise<Archive>, file: MutantFile): Promise<void> {
  const archive = await list(file)
  for (const member of archive.members) {
    if (member.bytes > MAX_STREAMED_BYTES) {
      await walk(checked(member.open(), member.name))
      continue
    }
    let given = 0
    for await (const piece of member.stream()) given += piece.length
    if (given !== member.bytes) throw new Misuse(`a member of ${member.bytes} bytes gave ${given}`)
  }
  if (file.reads > MAX_READS) throw new Misuse(`${file.reads} reads of an archive of three members`)
}

/** Of a sparse member, however large its hole is. */
async function walk(disk: BlockSource): Promise<void> {
  const end = Math.min(disk.size, 5000)
  await disk.read(0, end)
  await disk.read(disk.size - end, end)
  for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
    if (kind === 'data') await disk.read(offset, Math.min(length, end))
  }
}

/** Size, checksum, type and magic of the headers: digits, for the most part. */
function tarBase(bytes: Buffer): FuzzBase {
  const blocks = Array.from({ length: bytes.length / BLOCK }, (_, block) => block * BLOCK)
  const headers = blocks.filter((at) => bytes.toString('latin1', at + 257, at + 262) === 'ustar')
  return {
    bytes,
    fields: headers.flatMap((at): Field[] => [
      [at + 124, 8],
      [at + 132, 4],
      [at + 134, 1],
      [at + 156, 1],
      [at + 257, 8],
      [at, 8],
      [at + 345, 8],
      ...(bytes[at + 156] === OLD_SPARSE ? sparseFields.map(([place, width]): Field => [at + place, width]) : []),
    ]),
    regions: [...headers.map((at) => [at, 160] as const), [0, bytes.length]],
    seal({ bytes: mutant, keep }) {
      for (const at of headers.filter((each) => each + BLOCK <= mutant.length)) {
        keep(at + 148, 8)
        const header = Buffer.from(mutant.buffer, mutant.byteOffset + at, BLOCK)
        header.fill(' ', 148, 156)
        let sum = 0
        for (const byte of header) sum += byte
        header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
      }
    },
  }
}

/** Every field of local headers, central directory and end record. */
function zipBase(bytes: Buffer): FuzzBase {
  const places = ['PK\x03\x04', 'PK\x01\x02', 'PK\x05\x06'].flatMap((magic) => {
    const found: number[] = []
    for (let at = bytes.indexOf(magic, 0, 'latin1'); at >= 0; at = bytes.indexOf(magic, at + 1, 'latin1')) found.push(at)
    return found
  })
  return {
    bytes,
    isLittleEndian: true,
    fields: places
      .flatMap((at): Field[] => [
        ...[4, 6, 8, 10, 26, 28, 30].map((field): Field => [at + field, 2]),
        ...[12, 14, 16, 18, 20, 22, 24, 38, 42].map((field): Field => [at + field, 4]),
      ])
      .filter(([at, width]) => at + width <= bytes.length),
    regions: [...places.map((at) => [at, 50] as const), [0, bytes.length]],
  }
}
const digits = ['00000000', '77777777', '99999999', '   12345', '\x80\0\0\0\0\0\0\0'].map((each) =>
  Buffer.from(each, 'latin1').readBigUInt64BE(),
)

export const targets: readonly FuzzTarget[] = [
  fuzzTarget({
    name: 'tar',
    bases: tars.map(tarBase),
    values: [...[...'01234567xgLKSDV \x80\xff'].map((each) => each.charCodeAt(0)), ...digits],
    leastTaken: 1,
    use: (file) => use((each) => listTar(checked(each, 'file')), file),
  }),
  fuzzTarget({
    name: 'zip',
    bases: zips.map(zipBase),
    values: [20, 45, 46, 300, 900, 30, 37, 0x04034b50, 0x02014b50, 0x06054b50],
    leastTaken: 5,
    use: (file) => use((each) => listZip(checked(each, 'file')), file),
  }),
]
