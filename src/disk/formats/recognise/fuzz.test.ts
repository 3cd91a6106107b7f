import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { dynamicVhd, hostileCases, smallVdi, smallVhdx } from '../../../../test/fixtures/disk/hostile.ts'
import { ServiceError } from '../../../base/errors.ts'
import { checked } from '../../block/checked.ts'
import { bytesSource } from '../../block/memory-source.ts'
import { recognise } from './recognise.ts'
import { verifyDeclared } from './verify.ts'

const MAX_READ_BYTES = 2 * 1024 * 1024
const accepted = hostileCases().filter(
  ({ expect, declared, file }) => expect === 'ok' && declared !== 'qcow2' && file.size <= 2 ** 20,
)
const bases = [
  ...(await Promise.all(accepted.map(async ({ declared, file }) => ({ declared, bytes: await file.read(0, file.size) })))),
  { declared: 'vhd', bytes: dynamicVhd() },
  { declared: 'vdi', bytes: smallVdi() },
  { declared: 'vhdx', bytes: smallVhdx() },
]
const KiB = 1024
/** Where the headers of the formats are, and the end of the file. */
const regions = [0, 0x40, 0x150, 512, 1536, 32768, 64 * KiB, 192 * KiB, 2048 * KiB, 2048 * KiB + 64 * KiB, -512, -1024]
const poke = fc.record({
  region: fc.constantFrom(...regions),
  at: fc.nat(130),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 8 }),
})

test('recognise and verifyDeclared answer or refuse any damaged header, and read little', async () => {
  const property = fc.asyncProperty(
    fc.constantFrom(...bases),
    fc.array(poke, { maxLength: 5 }),
    fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(64) }),
    async ({ declared, bytes }, pokes, cut) => {
      const copy = Uint8Array.from(bytes)
      for (const { region, at, bytes: wanted } of pokes) {
        const offset = (region < 0 ? copy.length : 0) + region + at
        if (offset >= 0 && offset + wanted.length <= copy.length) copy.set(wanted, offset)
      }
      const file = bytesSource(cut === 0 ? copy : copy.subarray(0, Math.floor((copy.length * cut) / 64)))
      let readBytes = 0
      const counted = {
        ...file,
        read: (offset: number, length: number) => {
          readBytes += length
          return file.read(offset, length)
        },
      }
      const recognition = await recognise(checked(counted, 'file'))
      assert.ok(readBytes <= MAX_READ_BYTES, `read ${readBytes} bytes`)
      try {
        verifyDeclared(declared, recognition, 'bare')
      } catch (error) {
        assert.ok(error instanceof ServiceError, `leaked ${error}`)
      }
    },
  )
  await fc.assert(property, { numRuns: Number(process.env.FUZZ_RUNS ?? 300) })
})
