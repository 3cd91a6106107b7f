import { Misuse, type MutantFile } from '../../../../test/fixtures/fuzz/mutant-file.ts'
import { type Field, type FuzzBase, type FuzzTarget, fuzzTarget } from '../../../../test/fixtures/fuzz/target.ts'
import { checked } from '../../block/checked.ts'
import type { Archive } from './archive.ts'
import { smallTar, smallZip } from './small-archives.suite.ts'
import { listTar } from './tar.ts'
import { listZip } from './zip.ts'

const MAX_READS = 200
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
const zips = [smallZip(members), smallZip(members, { method: 8 })]

async function use(list: (file: MutantFile) => Promise<Archive>, file: MutantFile): Promise<void> {
  const archive = await list(file)
  for (const member of archive.members) {
    let given = 0
    for await (const piece of member.stream()) given += piece.length
    if (given !== member.bytes) throw new Misuse(`a member of ${member.bytes} bytes gave ${given}`)
  }
  if (file.reads > MAX_READS) throw new Misuse(`${file.reads} reads of an archive of three members`)
}

/** Size, checksum, type and magic of the headers: digits, for the most part. */
function tarBase(bytes: Buffer): FuzzBase {
  const headers = [0, 1, 2, 3, 4].map((block) => block * 2 * BLOCK).filter((at) => at + BLOCK <= bytes.length)
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
