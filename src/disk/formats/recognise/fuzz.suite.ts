import { dynamicVhd, hostileCases, smallVdi, smallVhdx } from '../../../../test/fixtures/disk/hostile.ts'
import { Misuse } from '../../../../test/fixtures/fuzz/mutant-file.ts'
import { type Field, fuzzTarget } from '../../../../test/fixtures/fuzz/target.ts'
import { checked } from '../../block/checked.ts'
import { recognise } from './recognise.ts'
import { verifyDeclared } from './verify.ts'

const MAX_READ_BYTES = 2 * 1024 * 1024
const KiB = 1024
const accepted = hostileCases().filter(({ expect, file }) => expect === 'ok' && file.size > 0 && file.size <= 2 ** 20)
const files = [
  ...(await Promise.all(
    accepted.map(async ({ declared, file }) => ({ declared, bytes: Uint8Array.from(await file.read(0, file.size)) })),
  )),
  { declared: 'vhd', bytes: dynamicVhd() },
  { declared: 'vdi', bytes: smallVdi() },
  { declared: 'vhdx', bytes: smallVhdx() },
]
/** Where the headers of the formats are; negative: from the end. */
const headers = [0, 0x40, 0x150, 440, 512, 1080, 1536, 32768, 64 * KiB, 192 * KiB, 2048 * KiB, 2112 * KiB, -512, -1024]

export const targets = [
  fuzzTarget({
    name: 'recognise',
    bases: files.map(({ declared, bytes }) => {
      const inside = headers.map((at) => (at < 0 ? bytes.length + at : at)).filter((at) => at >= 0 && at + 130 <= bytes.length)
      return {
        declared,
        bytes,
        isLittleEndian: declared !== 'qcow2' && declared !== 'vhd',
        fields: inside.flatMap((header) => [0, 4, 8, 12, 16, 20, 24, 28, 36, 44, 48, 56].map((at): Field => [header + at, 4])),
        regions: inside.map((at) => [at, 130] as const),
      }
    }),
    leastTaken: 5,
    async use(file, { declared }) {
      const recognition = await recognise(checked(file, 'file'))
      if (file.bytesRead > MAX_READ_BYTES) throw new Misuse(`recognising read ${file.bytesRead} bytes`)
      verifyDeclared(declared, recognition, 'bare')
    },
  }),
]
