import { crc32, deflateRawSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { type FuzzBase, type FuzzTarget, fuzzTarget } from '../../../../test/fixtures/fuzz/target.ts'
import { ByteReader } from '../../packed/byte-reader.ts'
import { unpackXz } from '../../packed/xz.ts'
import { unpackBzip2 } from './bzip2.ts'
import { smallBzip2, smallText, smallXz } from './small-files.suite.ts'
import { unpacked } from './unpacked.ts'

/** What a file of a kilobyte can honestly hold, and more; what has no end meets it. */
const MAX_BYTES = 512 * 1024
const PIECE_BYTES = 400

/** In a thread of their own these two take one buffer of the file at a time. */
function through(kind: 'bzip2' | 'xz', unpack: typeof unpackXz, file: Uint8Array): void {
  let at = 0
  const reader = new ByteReader(kind, () => {
    if (at >= file.length) return undefined
    at += PIECE_BYTES
    return file.subarray(at - PIECE_BYTES, at)
  })
  let given = 0
  for (const piece of unpack(reader)) {
    given += piece.length
    if (given > MAX_BYTES) return
  }
}

/** As the service unpacks. */
async function throughEngine(file: Uint8Array): Promise<void> {
  async function* pieces() {
    for (let at = 0; at < file.length; at += PIECE_BYTES) yield file.subarray(at, at + PIECE_BYTES)
  }
  let given = 0
  const { bytes } = await unpacked(pieces(), { maxBytes: 64 * MAX_BYTES })
  for await (const piece of bytes) {
    given += piece.length
    if (given > MAX_BYTES) return
  }
}

/** Checksums of stream header, first block header, index and stream footer. */
function xzBase(bytes: Uint8Array): FuzzBase {
  return {
    bytes,
    isLittleEndian: true,
    fields: [
      ...[6, 7, 12, 13, 14, 15, 16, 24].map((at) => [at, 1] as const),
      ...[25, 27].map((at) => [at, 2] as const),
      ...[8, 4, 12, 16, 20, 24].map((back) => [bytes.length - back, 4] as const),
    ],
    regions: [
      [0, 90],
      [bytes.length - 60, 60],
      [0, bytes.length],
    ],
    seal({ bytes: mutant, keep }) {
      const view = new DataView(mutant.buffer, mutant.byteOffset, mutant.byteLength)
      const sum = (from: number, to: number, at: number) => {
        if (from < 0 || to < from || at < 0 || Math.max(to, at + 4) > mutant.length) return
        keep(at, 4)
        view.setUint32(at, crc32(mutant.subarray(from, to)), true)
      }
      if (mutant.length < 36) return
      sum(6, 8, 8)
      const blockEnd = 12 + ((mutant[12] as number) + 1) * 4 - 4
      sum(12, blockEnd, blockEnd)
      const footer = mutant.length - 12
      sum(footer + 4, footer + 10, footer)
      const indexBytes = (view.getUint32(footer + 4, true) + 1) * 4
      sum(footer - indexBytes, footer - 4, footer - 4)
    },
  }
}

const text = Buffer.from(smallText)
/** With every field that a header can have, the checksum of the header among them. */
const header = Buffer.from('1f8b081e000000000003040001020304', 'hex')
const names = Buffer.from('disk.raw\0comment\0')
const headerSum = Buffer.alloc(2)
headerSum.writeUInt16LE(crc32(Buffer.concat([header, names])) & 0xffff)
const named = Buffer.concat([header, names, headerSum, deflateRawSync(text), Buffer.alloc(8)])
named.writeUInt32LE(crc32(text), named.length - 8)
named.writeUInt32LE(text.length, named.length - 4)
const gzips = [gzipSync(text), Buffer.concat([gzipSync(text.subarray(0, 900)), gzipSync(text.subarray(900))]), named]
const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4])
const zstds = [zstdCompressSync(text), Buffer.concat([skippable, zstdCompressSync(text.subarray(0, 900)), skippable])]
const heads = (bytes: Uint8Array): FuzzBase => ({
  bytes: Uint8Array.from(bytes),
  isLittleEndian: true,
  fields: [
    ...[2, 3, 4, 5, 6, 8, 9, 10].map((at) => [at, 1] as const),
    ...[4, 10, 12].map((at) => [at, 2] as const),
    ...[0, 4, 8, bytes.length - 8, bytes.length - 4].map((at) => [at, 4] as const),
  ],
  regions: [
    [0, 40],
    [bytes.length - 20, 20],
    [0, bytes.length],
  ],
})

export const targets: readonly FuzzTarget[] = [
  fuzzTarget({
    name: 'gzip',
    bases: gzips.map(heads),
    values: [0x08, 0x10, 0x1e, 0x1f, 0xe0, 0x8b1f],
    leastTaken: 1,
    use: ({ bytes }) => throughEngine(bytes),
  }),
  fuzzTarget({
    name: 'zstd',
    bases: zstds.map(heads),
    values: [0x20, 0x60, 0xa0, 0xe0, 0x184d2a50, 0x184d2a5f, 0xfd2fb528],
    leastTaken: 1,
    use: ({ bytes }) => throughEngine(bytes),
  }),
  fuzzTarget({
    name: 'bzip2',
    bases: smallBzip2.map((bytes) => ({
      bytes,
      fields: [2, 3, 4, 10, 14, 17, 18, 20, 22].map((at) => [at, 1] as const),
      regions: [
        [0, 90],
        [0, bytes.length],
      ],
    })),
    values: [0x31, 0x39],
    leastTaken: 0.5,
    use: ({ bytes }) => through('bzip2', unpackBzip2, bytes),
  }),
  fuzzTarget({
    name: 'xz',
    bases: smallXz.map(xzBase),
    values: [0x21, 0x28, 0x7f, 0x80, 0xe0, 0x5d],
    leastTaken: 0.5,
    use: ({ bytes }) => through('xz', unpackXz, bytes),
  }),
]
