import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { ByteReader } from '../../packed/byte-reader.ts'
import { unpackXz } from '../../packed/xz.ts'
import { unpackBzip2 } from './bzip2.ts'
import { smallBzip2, smallXz } from './small-files.suite.ts'

/** What a file of a kilobyte can honestly hold, and more; what has no end meets it. */
const MAX_BYTES = 64 * 1024 * 1024
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

for (const [kind, bases] of [
  ['bzip2', smallBzip2],
  ['xz', smallXz],
] as const) {
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
