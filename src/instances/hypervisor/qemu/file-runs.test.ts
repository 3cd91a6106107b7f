import assert from 'node:assert/strict'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { isServiceError } from '../../../base/errors.ts'
import { memorySource } from '../../../disk/block/memory-source.ts'
import { runsOf, writeRuns } from './file-runs.ts'

async function written(context: TestContext, stream: Uint8Array, maxBytes: number, chunkBytes = 1000): Promise<Buffer> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-runs-'))
  context.after(() => rm(folder, { recursive: true }))
  const file = await open(join(folder, 'file'), 'wx')
  const body = async function* () {
    for (let at = 0; at < stream.length; at += chunkBytes) yield stream.subarray(at, at + chunkBytes)
  }
  await writeRuns(file, body(), maxBytes).finally(() => file.close())
  return readFile(join(folder, 'file'))
}
const sparse = memorySource(3_000_000, [
  { offset: 5, bytes: Buffer.from('near the start') },
  { offset: 1_500_000, bytes: Buffer.alloc(1_200_000, 'x') },
])
const streamOf = async () => Buffer.concat(await Array.fromAsync(runsOf(sparse)))

test('a file comes out as it went in, its holes not sent', async (context) => {
  const stream = await streamOf()
  assert.ok(stream.length < 1_400_000, `${stream.length} bytes`)
  assert.deepEqual(await written(context, stream, 3_000_000), Buffer.from(await sparse.read(0, 3_000_000)))
})

test('a stream that ends early is refused, and one that is larger than it may be', async (context) => {
  const stream = await streamOf()
  await assert.rejects(written(context, stream.subarray(0, -1), 3_000_000), { code: 'unavailable', message: /in part/ })
  await assert.rejects(written(context, new Uint8Array(), 3_000_000), { code: 'unavailable' })
  await assert.rejects(written(context, stream, 2_999_999), { code: 'too-large' })
})

test('any bytes are written or refused, within the bound', async (context) => {
  const heads = fc
    .tuple(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.integer({ min: 0, max: 2 ** 32 - 1 }))
    .map(([offset, length]) => {
      const head = Buffer.alloc(12)
      head.writeBigUInt64BE(offset)
      head.writeUInt32BE(length, 8)
      return head
    })
  const streams = fc.array(fc.oneof(heads, fc.uint8Array({ maxLength: 40 })), { maxLength: 6 })
  await fc.assert(
    fc.asyncProperty(streams, async (parts) => {
      try {
        assert.ok((await written(context, Buffer.concat(parts), 10_000)).length <= 10_000)
      } catch (error) {
        assert.ok(isServiceError(error), `leaked ${error}`)
      }
    }),
  )
})
