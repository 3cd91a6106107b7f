import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { crc32, gzipSync, zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { isServiceError } from '../../../base/errors.ts'
import { smallXz } from './small-files.suite.ts'
import { unpacked } from './unpacked.ts'

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}
const unpack = async (bytes: Uint8Array, options = {}, size = 1000) => {
  const { compression, bytes: inner } = await unpacked(pieces(bytes, size), { maxBytes: 2 ** 24, ...options })
  return { compression, bytes: await buffer(inner) }
}

test('what is packed by gzip or zstd comes out as it went in, in pieces of any size', async () => {
  const kinds = {
    none: (bytes: Buffer) => bytes,
    gzip: (bytes: Buffer) => gzipSync(bytes),
    zstd: (bytes: Buffer) => zstdCompressSync(bytes),
  }
  await fc.assert(
    fc.asyncProperty(
      fc.nat(5000),
      fc.integer({ min: 1, max: 700 }),
      fc.constantFrom('none', 'gzip', 'zstd'),
      async (length, size, kind) => {
        const bytes = Buffer.concat([Buffer.from('disk'), randomBytes(length)])
        const got = await unpack(kinds[kind as 'none'](bytes), {}, size)
        assert.equal(got.compression, kind)
        assert.ok(bytes.equals(got.bytes))
      },
    ),
    { numRuns: 40 },
  )
})

test('several members after each other are one file, as the tools that pack in parallel write them', async () => {
  const [a, b] = [randomBytes(3000), randomBytes(3000)]
  for (const pack of [gzipSync, zstdCompressSync] as const) {
    assert.ok(Buffer.concat([a, b]).equals((await unpack(Buffer.concat([pack(a), pack(b)]))).bytes))
  }
})

test('a skippable frame of zstd is skipped', async () => {
  const skippable = Buffer.from('5a2a4d1803000000aabbcc', 'hex')
  const packed = Buffer.concat([zstdCompressSync(Buffer.from('disk')), skippable, zstdCompressSync(Buffer.from('more'))])
  assert.equal((await unpack(packed, {}, 1)).bytes.toString(), 'diskmore')
})

const many = (hex: string): Uint8Array => Buffer.alloc(100_000 * (hex.length / 2), hex, 'hex')
/** The first small xz file with a byte of its headers changed, and the checksum of it made right. */
function resealed(at: number, value: number, from: number, to: number): Uint8Array {
  const copy = Buffer.from(smallXz[0] as Uint8Array)
  copy[at] = value
  copy.writeUInt32LE(crc32(copy.subarray(from, to)), to)
  return copy
}
const withDictionary = (bits: number) => resealed(16, bits, 12, 20)
const withFilter = (id: number) => resealed(14, id, 12, 20)
const withCheck = (kind: number) => resealed(7, kind, 6, 8)
/** A stream of bzip2 with 20,000 blocks of one byte each. They begin at any bit, so that the stream is put together as digits. */
function tinyBlocks(): Uint8Array {
  const bits = [...Buffer.from('425a683931415926535919939b6b00000001002000200021184682ee48a70a120332736d60', 'hex')]
    .map((byte) => byte.toString(2).padStart(8, '0'))
    .join('')
  const block = bits.slice(32, bits.lastIndexOf((0x177245385090).toString(2).padStart(48, '0')))
  const stream = bits.slice(0, 32) + block.repeat(20_000)
  return Uint8Array.from({ length: Math.floor(stream.length / 8) }, (_, at) =>
    Number.parseInt(stream.slice(at * 8, at * 8 + 8), 2),
  )
}
/** 500,000 zeros. */
const xzInBzip2 = Buffer.from(
  'QlpoOTFBWSZTWS4k9oQAAGR///SWY1OtQYC3l+so9qS297mTVJUBac21wF4qSWF/pQDqsAC7YOamJkxNNMmGgTTBMBqMBMgDIwTAjIwAAGptE2ptGGqHAJgEwCYEyYAE9EwAEwRiYaGjQDRNMBMEYGgMm0pgmEwEwATABGAABMJgAACYAIwEYRgADCIJAMPYAVcMIuNAEYYwxPNJVE6KwWw70tBJXua01MyPOyL/B+2PgXStBXQOIeL30A9aeWKxkpaQuHFV7fJpoqEyagnUfCJ/xg2gIrDMBTCXb5v170Hx7LQObXWoil9/AyEiiPIt8GZwPn3J7wVG4IOK+KwldhVT+P9K0XLnWb+b8CJkGSui6N+71AEwercx2E2iWPrGLDsbRCCwJpXKjW9owoYDAeRgCwocHH/i7kinChIFxJ7QgA==',
  'base64',
)

const refused: readonly { name: string; bytes: Uint8Array; options?: object; code: string; says: RegExp }[] = [
  { name: 'lz4', bytes: Buffer.from('04224d180000', 'hex'), code: 'unsupported', says: /lz4.*pack it by gzip, bzip2, xz, zstd/ },
  { name: 'gzip in gzip', bytes: gzipSync(gzipSync(randomBytes(100))), code: 'invalid-image', says: /twice/ },
  { name: 'lzip', bytes: Buffer.from('LZIP\x01xx'), code: 'unsupported', says: /lzip/ },
  { name: 'xz in zstd', bytes: zstdCompressSync(Buffer.from('fd377a585a0000', 'hex')), code: 'invalid-image', says: /twice/ },
  { name: 'gzip cut short', bytes: gzipSync(randomBytes(5000)).subarray(0, 4000), code: 'invalid-image', says: /damaged/ },
  {
    name: 'zstd cut short',
    bytes: zstdCompressSync(randomBytes(5000)).subarray(0, 4000),
    code: 'invalid-image',
    says: /damaged/,
  },
  {
    name: 'gzip with a wrong checksum',
    bytes: Buffer.concat([gzipSync(randomBytes(50)).subarray(0, -8), Buffer.alloc(8)]),
    code: 'invalid-image',
    says: /damaged/,
  },
  {
    name: 'zstd with something after it',
    bytes: Buffer.concat([zstdCompressSync(randomBytes(50)), Buffer.from('trailer')]),
    code: 'invalid-image',
    says: /follows the last frame/,
  },
  {
    name: 'zstd with a window of 2 GiB',
    bytes: Buffer.from('28b52ffd00a8010000', 'hex'),
    code: 'invalid-image',
    says: /damaged/,
  },
  { name: 'xz in bzip2', bytes: xzInBzip2, code: 'invalid-image', says: /twice/ },
  {
    name: 'xz with a dictionary of 1.5 GiB',
    bytes: withDictionary(37),
    code: 'unsupported',
    says: /1610612736 bytes; 67108864 is the limit/,
  },
  { name: 'xz with a dictionary of 128 MiB', bytes: withDictionary(30), code: 'unsupported', says: /134217728/ },
  { name: 'xz with a dictionary that no size is', bytes: withDictionary(41), code: 'invalid-image', says: /out of range/ },
  { name: 'xz without LZMA2', bytes: withFilter(4), code: 'unsupported', says: /the last filter of a block is 4; LZMA2/ },
  { name: 'xz with a check nobody knows', bytes: withCheck(2), code: 'unsupported', says: /a check of kind 2/ },
  {
    name: '10^5 empty streams of bzip2',
    bytes: many('425a683917724538509000000000'),
    code: 'invalid-image',
    says: /hold 0 bytes/,
  },
  {
    name: '20,000 tiny blocks of bzip2',
    bytes: tinyBlocks(),
    code: 'invalid-image',
    says: /4101 streams and blocks hold \d+ bytes/,
  },
  {
    name: '10^5 empty streams of xz',
    bytes: many('fd377a585a0000016922de36000000001cdf44219042990d010000000001595a'),
    code: 'invalid-image',
    says: /hold 0 bytes/,
  },
  {
    name: '10^5 skippable frames of zstd',
    bytes: Buffer.concat([zstdCompressSync('x'), many('502a4d1800000000')]),
    code: 'invalid-image',
    says: /frames/,
  },
  {
    name: 'a bomb of gzip',
    bytes: gzipSync(Buffer.alloc(2 ** 23)),
    options: { freeBytes: 2 ** 20 },
    code: 'invalid-image',
    says: /more than 250 times/,
  },
  {
    name: 'a bomb of zstd',
    bytes: zstdCompressSync(Buffer.alloc(2 ** 23)),
    options: { freeBytes: 2 ** 20 },
    code: 'invalid-image',
    says: /more than 250 times/,
  },
  {
    name: 'more than may come out',
    bytes: gzipSync(randomBytes(5000)),
    options: { maxBytes: 4999 },
    code: 'too-large',
    says: /4999/,
  },
]
for (const { name, bytes, options = {}, code, says } of refused) {
  test(`unpacked refuses ${name}`, async () => {
    await assert.rejects(unpack(bytes, options), { code, message: says })
  })
}

test('any bytes come out or are refused, and an error of the source passes through', async () => {
  const starts = fc.constantFrom(
    [],
    [0x1f, 0x8b, 8],
    [0x28, 0xb5, 0x2f, 0xfd],
    [...Buffer.from('BZh9')],
    [0xfd, ...Buffer.from('7zXZ\0')],
  )
  await fc.assert(
    fc.asyncProperty(starts, fc.uint8Array({ maxLength: 200 }), async (start, rest) => {
      await unpack(Uint8Array.of(...start, ...rest)).catch((error) => assert.ok(isServiceError(error), String(error)))
    }),
    { numRuns: 60 },
  )
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield gzipSync(randomBytes(5000)).subarray(0, 2000)
    throw new Error('line down')
  }
  const { bytes } = await unpacked(broken(), { maxBytes: 2 ** 20 })
  await assert.rejects(buffer(bytes), { message: 'line down' })
})

test('a source whose kind is refused is ended as well', async () => {
  let ended = false
  async function* source(): AsyncGenerator<Uint8Array> {
    try {
      yield Buffer.from('04224d180000', 'hex')
      yield Buffer.alloc(10)
    } finally {
      ended = true
    }
  }
  await assert.rejects(unpacked(source(), { maxBytes: 1000 }), { code: 'unsupported' })
  assert.ok(ended)
})

test('a reader that stops early ends the source', async () => {
  let ended = false
  async function* source(): AsyncGenerator<Uint8Array> {
    try {
      const packed = gzipSync(randomBytes(2 ** 20))
      yield* pieces(packed, 1000)
    } finally {
      ended = true
    }
  }
  const { bytes } = await unpacked(source(), { maxBytes: 2 ** 24 })
  for await (const _ of bytes) break
  await new Promise((resolve) => setImmediate(resolve))
  assert.ok(ended)
})
