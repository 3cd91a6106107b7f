import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ServiceError } from '../../../base/errors.ts'
import type { BlockSource } from '../../block/block-source.ts'
import { checked } from '../../block/checked.ts'
import { bytesSource } from '../../block/memory-source.ts'
import type { Archive } from './archive.ts'
import { smallTar, smallZip } from './small-archives.suite.ts'
import { listTar } from './tar.ts'
import { listZip } from './zip.ts'

const MAX_READS = 200
const RUNS = Number(process.env.FUZZ_RUNS ?? 2000)
const text = 'disk '.repeat(60)
const members = [
  { name: 'box.ovf', body: text },
  { name: 'disk.vmdk', body: text.repeat(3) },
]
const tars = [
  smallTar(members),
  smallTar([{ name: 'long', type: 'L', body: 'a/long/name\0' }, ...members]),
  smallTar([
    { name: 'pax', type: 'x', body: '13 size=300\n9 path=a\n'.replace('13', '12') },
    { name: 'x', body: text },
  ]),
]
const zips = [smallZip(members), smallZip(members, { method: 8 })]

/** Throws a plain Error, which the property does not forgive, when a limit is passed. */
function bounded(file: BlockSource): BlockSource {
  let reads = 0
  return {
    ...file,
    read(offset, length) {
      reads += 1
      if (reads > MAX_READS) throw new Error('no end of reads')
      return file.read(offset, length)
    },
  }
}
async function use(list: (file: BlockSource) => Promise<Archive>, bytes: Uint8Array): Promise<void> {
  const archive = await list(checked(bounded(bytesSource(bytes)), 'file'))
  for (const member of archive.members) {
    let given = 0
    for await (const piece of member.stream()) given += piece.length
    assert.equal(given, member.bytes)
  }
}
/** The checksum of a tar header made right again. */
function resealed(bytes: Uint8Array, at: number): void {
  const header = Buffer.from(bytes.buffer, bytes.byteOffset + at, 512)
  header.fill(' ', 148, 156)
  header.write(
    `${header
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  )
}

const value = fc.oneof(fc.constantFrom(0, 0x20, 0x30, 0x31, 0x37, 0x39, 0x80, 0xff), fc.nat(255))
for (const [kind, list, bases] of [
  ['tar', listTar, tars],
  ['zip', listZip, zips],
] as const) {
  test(`${kind}: any damaged archive is listed or refused, within bounds, and nothing crashes`, async () => {
    const property = fc.asyncProperty(
      fc.constantFrom(...bases),
      fc.array(fc.tuple(fc.oneof(fc.nat(160), fc.nat(5000)), value), { maxLength: 6 }),
      fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(64) }),
      async (base, pokes, cut) => {
        const bytes = Uint8Array.from(cut === 0 ? base : base.subarray(0, Math.floor((base.length * cut) / 64)))
        for (const [at, wanted] of pokes) {
          // zip keeps what counts at its end
          if (bytes.length > 0) bytes[kind === 'zip' ? bytes.length - 1 - (at % bytes.length) : at % bytes.length] = wanted
        }
        if (kind === 'tar') for (const at of [0, 1024, 2048]) if (bytes.length >= at + 512) resealed(bytes, at)
        try {
          await use(list, bytes)
        } catch (error) {
          assert.ok(error instanceof ServiceError, `leaked ${error instanceof Error ? error.stack : error}`)
          assert.ok(error.code === 'invalid-image' || error.code === 'unsupported', `${error.code}: ${error.message}`)
        }
      },
    )
    await fc.assert(property, { numRuns: RUNS })
  })
}

test('the archives that are damaged are whole before', async () => {
  for (const bytes of tars) await use(listTar, bytes)
  for (const bytes of zips) await use(listZip, bytes)
})
