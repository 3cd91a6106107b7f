import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { isServiceError } from '../../base/errors.ts'
import { decompressed } from './decompress.ts'

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}
const unpack = async (bytes: Uint8Array, options = {}, size = 1000) => {
  const { compression, bytes: inner } = await decompressed(pieces(bytes, size), { maxBytes: 2 ** 24, ...options })
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

const refused: readonly { name: string; bytes: Uint8Array; options?: object; code: string; says: RegExp }[] = [
  { name: 'xz', bytes: Buffer.from('fd377a585a0000', 'hex'), code: 'unsupported', says: /xz.*gzip or zstd/ },
  { name: 'bzip2', bytes: Buffer.from('BZh91AY&SY'), code: 'unsupported', says: /bzip2/ },
  { name: 'zip', bytes: Buffer.from('PK\x03\x04zip'), code: 'unsupported', says: /zip/ },
  { name: 'lz4', bytes: Buffer.from('04224d180000', 'hex'), code: 'unsupported', says: /lz4/ },
  { name: 'gzip in gzip', bytes: gzipSync(gzipSync(randomBytes(100))), code: 'invalid-image', says: /twice/ },
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
    says: /follows its last frame/,
  },
  {
    name: 'zstd with a window of 2 GiB',
    bytes: Buffer.from('28b52ffd00a8010000', 'hex'),
    code: 'invalid-image',
    says: /damaged/,
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
  test(`decompressed refuses ${name}`, async () => {
    await assert.rejects(unpack(bytes, options), { code, message: says })
  })
}

test('any bytes come out or are refused, and an error of the source passes through', async () => {
  const starts = fc.constantFrom([], [0x1f, 0x8b, 8], [0x28, 0xb5, 0x2f, 0xfd])
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
  const { bytes } = await decompressed(broken(), { maxBytes: 2 ** 20 })
  await assert.rejects(buffer(bytes), { message: 'line down' })
})

test('a source whose kind is refused is ended as well', async () => {
  let ended = false
  async function* source(): AsyncGenerator<Uint8Array> {
    try {
      yield Buffer.from('fd377a585a0000', 'hex')
      yield Buffer.alloc(10)
    } finally {
      ended = true
    }
  }
  await assert.rejects(decompressed(source(), { maxBytes: 1000 }), { code: 'unsupported' })
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
  const { bytes } = await decompressed(source(), { maxBytes: 2 ** 24 })
  for await (const _ of bytes) break
  await new Promise((resolve) => setImmediate(resolve))
  assert.ok(ended)
})
