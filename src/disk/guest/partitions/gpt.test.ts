import assert from 'node:assert/strict'
import { readFile, truncate, writeFile } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { lacking, run, scratch } from '../../../../test/fixtures/disk/tools.ts'
import { isServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import { memorySource, type Piece } from '../../block/memory-source.ts'
import { gptForDisk, readGpt } from './gpt.ts'

const DISK = 8 * MiB
const source = (bytes: Uint8Array) => memorySource(bytes.length, [{ offset: 0, bytes }])

/** As sgdisk makes it: two partitions, with their names and identities. */
async function partitioned(t: TestContext): Promise<Buffer> {
  const path = await scratch(t)
  await writeFile(path('disk'), '')
  await truncate(path('disk'), DISK)
  await run('sgdisk', '-n', '1:2048:+1M', '-t', '1:ef00', '-c', '1:EFI', '-n', '2:4096:0', '-c', '2:root', path('disk'))
  return readFile(path('disk'))
}
function withPieces(disk: Buffer, bytes: number, pieces: readonly Piece[]): Buffer {
  const grown = Buffer.alloc(bytes)
  disk.copy(grown)
  for (const piece of pieces) grown.set(piece.bytes, piece.offset)
  return grown
}
const tool = { skip: lacking('sgdisk') }

test('a table for a larger disk is one that sgdisk finds no fault with, and names the same partitions', tool, async (t) => {
  const path = await scratch(t)
  const disk = await partitioned(t)
  const info = async (bytes: Buffer) => {
    await writeFile(path('other'), bytes)
    return Promise.all(['1', '2'].map((number) => run('sgdisk', '-i', number, path('other'))))
  }
  const before = await info(disk)
  const gpt = (await readGpt(source(disk)))!
  for (const bytes of [DISK + 512, DISK + 5 * 512, DISK + 33 * 512, DISK + MiB, 3 * DISK + 512, 64 * MiB + 700]) {
    const grown = withPieces(disk, bytes, gptForDisk(gpt, bytes)!)
    assert.deepEqual(await info(grown), before)
    const said = await run('sgdisk', '-v', path('other'))
    assert.match(said, /No problems found/, `${bytes}: ${said}`)
    assert.deepEqual(gptForDisk((await readGpt(source(grown)))!, bytes), [], 'and there is nothing left to do')
  }
})

test('on a disk of its own size nothing is changed; where a partition is in the way nothing is offered', tool, async (t) => {
  const disk = await partitioned(t)
  const gpt = (await readGpt(source(disk)))!
  assert.deepEqual(gptForDisk(gpt, DISK), [])
  assert.equal(gptForDisk(gpt, DISK - 512), undefined)
  assert.equal(gptForDisk(gpt, 2048), undefined)
})

test('4096-byte blocks are found as well', tool, async (t) => {
  const disk = await partitioned(t)
  const wide = Buffer.alloc(2 * DISK)
  disk.copy(wide, 0, 0, 512)
  disk.copy(wide, 4096, 512, 1024)
  disk.copy(wide, 8192, 1024, 1024 + 16_384)
  wide.writeUInt32LE(0, 4096 + 16)
  wide.writeUInt32LE(crc32(wide.subarray(4096, 4096 + 92)), 4096 + 16)
  const gpt = (await readGpt(source(wide)))!
  assert.equal(gpt.sectorBytes, 4096)
  const bytes = 20_000 * 4096
  const [front, back] = gptForDisk(gpt, bytes)!
  assert.equal(front!.bytes.length, 8192)
  assert.equal(back!.offset + back!.bytes.length, bytes)
})

const refused = [
  { name: 'a header of 4 GiB', at: 12, u32: 2 ** 32 - 1, says: /its header has/ },
  { name: '2^32 − 1 entries', at: 80, u32: 2 ** 32 - 1, says: /entries/ },
  { name: 'no entries', at: 80, u32: 0, says: /0 entries/ },
  { name: 'entries of 127 bytes', at: 84, u32: 127, says: /127 bytes/ },
  { name: 'entries of no bytes', at: 84, u32: 0, says: /0 bytes/ },
  { name: 'entries of 4 GiB', at: 84, u32: 2 ** 31, says: /bytes/ },
  { name: 'a header that lies elsewhere', at: 24, u32: 7, says: /block 7/ },
  { name: 'a table over the header', at: 72, u32: 1, says: /outside/ },
  { name: 'a table past the end', at: 72, u32: 2 ** 31, says: /outside/ },
  { name: 'usable blocks in the table', at: 40, u32: 3, says: /usable/ },
]
for (const { name, at, u32, says } of refused) {
  test(`a table with ${name} is refused`, tool, async (t) => {
    const disk = await partitioned(t)
    disk.writeUInt32LE(u32, 512 + at)
    disk.writeUInt32LE(0, 512 + 16)
    const headerBytes = Math.min(512, disk.readUInt32LE(512 + 12))
    disk.writeUInt32LE(crc32(disk.subarray(512, 512 + headerBytes)), 512 + 16)
    await assert.rejects(readGpt(source(disk)), { code: 'invalid-image', message: says })
  })
}

test('any bytes after the signature are a table or refused, and never crash', async () => {
  const property = fc.asyncProperty(fc.uint8Array({ maxLength: 600 }), async (random) => {
    const disk = Buffer.alloc(64 * 1024)
    disk.write('EFI PART', 512, 'latin1')
    disk.set(random, 520)
    disk.writeUInt32LE(92, 512 + 12)
    disk.writeUInt32LE(0, 512 + 16)
    disk.writeUInt32LE(crc32(disk.subarray(512, 512 + 92)), 512 + 16)
    try {
      await readGpt(source(disk))
    } catch (error) {
      assert.ok(isServiceError(error, 'invalid-image'), `leaked ${error}`)
    }
  })
  await fc.assert(property, { numRuns: 500 })
})
