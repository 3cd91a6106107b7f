import assert from 'node:assert/strict'
import { test } from 'node:test'
import { constants, deflateRawSync, zstdCompressSync } from 'node:zlib'
import { patterned } from '../../../../test/fixtures/disk/disks.ts'
import { smallQcow2 } from '../../../../test/fixtures/disk/hostile.ts'
import { decompressCluster, zstdFrameBytes } from './compressed.ts'
import { parseHeader } from './header.ts'

const CLUSTER = 65536
const image = smallQcow2()
const headers = {
  zlib: parseHeader(image, image.length),
  zstd: { ...parseHeader(image, image.length), compression: 'zstd' as const },
}
const pack = {
  zlib: (bytes: Uint8Array) => deflateRawSync(bytes, { windowBits: 12 }),
  zstd: (bytes: Uint8Array) => zstdCompressSync(bytes),
}
const noise = Buffer.from('bytes of the next cluster, which lies in the same sector')

for (const kind of ['zlib', 'zstd'] as const) {
  const text = patterned(CLUSTER, 1, 'text')
  for (const [name, bytes] of [
    ['text', text],
    ['zeros', new Uint8Array(CLUSTER)],
    ['noise', patterned(CLUSTER, 2)],
  ] as const) {
    test(`${kind}: a cluster of ${name} comes out, whatever follows it`, async () => {
      for (const after of [Buffer.alloc(0), noise, Buffer.alloc(300), Buffer.from(pack[kind](bytes))]) {
        const packed = Buffer.concat([pack[kind](bytes), after])
        for (const isAlone of [false, true]) {
          const out = await decompressCluster(packed, headers[kind], 0, isAlone)
          assert.deepEqual(Buffer.from(out), Buffer.from(bytes))
        }
      }
    })
  }
  const packed = Buffer.from(pack[kind](text))
  const damaged = {
    nothing: Buffer.alloc(0),
    zeros: Buffer.alloc(100),
    'a stream cut off': packed.subarray(0, packed.length - 5),
    'a stream that is too short': pack[kind](text.subarray(0, CLUSTER - 1)),
    'a stream that is too long': pack[kind](Buffer.alloc(CLUSTER + 1)),
    'a bomb': pack[kind](Buffer.alloc(CLUSTER * 1000)),
    'other bytes': noise,
  }
  for (const [name, bytes] of Object.entries(damaged)) {
    test(`${kind}: ${name} is refused`, async () => {
      for (const isAlone of [false, true]) {
        await assert.rejects(decompressCluster(bytes, headers[kind], 4096, isAlone), {
          code: 'invalid-image',
          message: /byte 4096 of the disk is damaged/,
        })
      }
    })
  }
}

test('zstd: a frame that asks for a window of 128 MiB is refused', async () => {
  const frame = zstdCompressSync(Buffer.alloc(CLUSTER), {
    params: { [constants.ZSTD_c_windowLog]: 27, [constants.ZSTD_c_contentSizeFlag]: 0 },
  })
  const wide = Buffer.from(frame)
  wide[4] = 0 // no content size, not a single segment: the window byte follows
  wide[5] = 17 << 3 // 2^(10 + 17)
  await assert.rejects(decompressCluster(wide, headers.zstd, 0), { code: 'invalid-image' })
})

test('zstd: the end of a frame is found', () => {
  for (const length of [0, 1, 1000, 200_000, 500_000]) {
    for (const checksumFlag of [0, 1]) {
      const frame = zstdCompressSync(patterned(length, 3), { params: { [constants.ZSTD_c_checksumFlag]: checksumFlag } })
      assert.equal(zstdFrameBytes(Buffer.concat([frame, noise])), frame.length)
    }
  }
})
