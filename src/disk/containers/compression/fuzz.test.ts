import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { ServiceError } from '../../../base/errors.ts'
import { ByteReader } from './byte-reader.ts'
import { unpackBzip2 } from './bzip2.ts'
import { smallBzip2, smallXz } from './small-files.suite.ts'
import { unpackXz } from './xz.ts'

/** What a file of a kilobyte can honestly hold, and more; what has no end meets it. */
const MAX_BYTES = 64 * 1024 * 1024
const RUNS = Number(process.env.FUZZ_RUNS ?? 2000)
const decoders = { bzip2: unpackBzip2, xz: unpackXz } as const

/** One buffer of the file at a time. @returns how many bytes came out */
function use(kind: keyof typeof decoders, file: Uint8Array, pieceBytes: number): number {
  let at = 0
  const reader = new ByteReader(kind, () => {
    if (at >= file.length) return undefined
    at += pieceBytes
    return file.subarray(at - pieceBytes, at)
  })
  let bytes = 0
  for (const piece of decoders[kind](reader)) {
    bytes += piece.length
    if (bytes > MAX_BYTES) break
  }
  return bytes
}

/** The checksums of a stream header and of the first block header made right again, so that what they guard is reached. */
function resealed(xz: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(xz)
  const view = new DataView(copy.buffer)
  if (copy.length < 24) return copy
  view.setUint32(8, crc32(copy.subarray(6, 8)), true)
  const end = 12 + ((copy[12] as number) + 1) * 4 - 4
  if (end + 4 <= copy.length) view.setUint32(end, crc32(copy.subarray(12, end)), true)
  return copy
}

const poke = fc.tuple(fc.oneof(fc.nat(90), fc.nat(1500)), fc.oneof(fc.constantFrom(0, 1, 2, 0x7f, 0x80, 0xe0, 0xff), fc.nat(255)))
for (const [kind, bases] of [
  ['bzip2', smallBzip2],
  ['xz', smallXz],
] as const) {
  test(`${kind}: any damaged file comes out or is refused, within bounds, and nothing crashes`, () => {
    const property = fc.property(
      fc.constantFrom(...bases),
      fc.array(poke, { maxLength: 5 }),
      fc.nat(1500),
      fc.integer({ min: 1, max: 3 }),
      fc.boolean(),
      (base, pokes, cut, quarter, reseal) => {
        const bytes = Uint8Array.from(cut < base.length && quarter === 1 ? base.subarray(0, cut) : base)
        for (const [at, value] of pokes) bytes[at % bytes.length] = value
        try {
          use(kind, kind === 'xz' && reseal ? resealed(bytes) : bytes, 1 + (cut % 200))
        } catch (error) {
          assert.ok(error instanceof ServiceError, `leaked ${error instanceof Error ? error.stack : error}`)
          assert.ok(error.code === 'invalid-image' || error.code === 'unsupported', `${error.code}: ${error.message}`)
        }
      },
    )
    fc.assert(property, { numRuns: RUNS })
  })

  test(`${kind}: a file cut anywhere is refused`, () => {
    for (const base of bases) {
      for (let cut = 1; cut < base.length; cut += 1) {
        assert.throws(
          () => use(kind, base.subarray(0, cut), 50),
          { code: 'invalid-image', message: /they end at byte/ },
          `cut at ${cut}`,
        )
      }
    }
  })

  test(`${kind}: noise behind a file is refused`, () => {
    for (const base of bases) {
      assert.throws(() => use(kind, Buffer.concat([base, Buffer.of(1), randomBytes(20)]), 999), { code: 'invalid-image' })
    }
  })

  test(`${kind}: a change of any one byte is noticed`, () => {
    for (const base of bases) {
      const plain = use(kind, base, 100)
      assert.ok(plain > 1000)
      // the last byte of bzip2 is padding in part
      for (let at = 0; at < base.length - (kind === 'bzip2' ? 1 : 0); at += 1) {
        const changed = Uint8Array.from(base)
        changed[at] = (changed[at] as number) ^ 0x10
        assert.throws(() => use(kind, changed, 1000), { name: 'ServiceError' }, `byte ${at}`)
      }
    }
  })
}
