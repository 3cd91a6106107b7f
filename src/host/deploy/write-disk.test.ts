import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { open, readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { lacking, run, scratch } from '../../../test/fixtures/disk/tools.ts'
import { KiB, MiB } from '../../base/units.ts'
import { memorySource } from '../../disk/block/memory-source.ts'
import { bootPatches } from './boot-patches.ts'
import { diskOf, type ImageDisk } from './image-disk.ts'
import { Target } from './target.ts'
import { type Deployed, type Deployment, writeDisk } from './write-disk.ts'

const CHUNK = 64 * KiB
const source = (bytes: Uint8Array) => memorySource(bytes.length, [{ offset: 0, bytes }])
/** @param isKnown its digests are known, as those of a plain file are; else it must be read to be compared */
async function imageOf(bytes: Uint8Array, isKnown = true, chunkBytes = CHUNK): Promise<ImageDisk> {
  const image = diskOf(source(bytes), chunkBytes)
  if (isKnown) await image.read(0, bytes.length)
  return image
}
async function deploy(path: string, image: ImageDisk, options: Partial<Deployment> = {}): Promise<Deployed> {
  const target = await Target.open(path, { isReadOnly: options.isDry ?? false, leastBytes: image.size })
  try {
    if (!options.isDry) await target.prepare()
    const { signal } = new AbortController()
    return await writeDisk({ image, target, patches: [], isDry: false, signal, onProgress: () => {}, ...options })
  } finally {
    await target.close()
  }
}
/** A disk of chunks with data, with zeros, and with data that ends within a chunk. */
function disk(chunks: string, tail = 0): Buffer {
  const bytes = Buffer.alloc(chunks.length * CHUNK + tail, 0x7a)
  for (const [index, kind] of [...chunks].entries()) {
    bytes.subarray(index * CHUNK, (index + 1) * CHUNK).fill(kind === '.' ? 0 : `chunk ${kind} `)
  }
  return bytes
}

test('whatever was there, afterwards the image is there and what lies behind it is untouched; again, nothing is written', async (t) => {
  const path = await scratch(t)
  const kinds = fc.string({ unit: fc.constantFrom('.', 'a', 'b', 'c'), minLength: 1, maxLength: 150 })
  const property = fc.asyncProperty(
    kinds,
    kinds,
    fc.nat(3000),
    fc.nat(5000),
    fc.boolean(),
    async (wanted, there, tail, more, isKnown) => {
      const bytes = disk(wanted, tail)
      const before = Buffer.concat([disk(there), Buffer.alloc(more, 0x55)])
      await writeFile(path('target'), before)
      const done = await deploy(path('target'), await imageOf(bytes, isKnown))
      const after = await readFile(path('target'))
      assert.ok(after.subarray(0, bytes.length).equals(bytes))
      assert.ok(after.subarray(bytes.length).equals(before.subarray(bytes.length)))
      assert.equal(done.comparedBytes, bytes.length)
      const again = await deploy(path('target'), await imageOf(bytes, isKnown))
      assert.deepEqual(again, { ...done, sameBytes: bytes.length, writtenBytes: 0, zeroedBytes: 0, verifiedBytes: 0 })
    },
  )
  await fc.assert(property, { numRuns: 15 })
})

test('only what differs is written', async (t) => {
  const path = await scratch(t)
  const bytes = disk('abc.abc.'.repeat(40))
  await writeFile(path('target'), bytes)
  const changed = Buffer.from(bytes)
  changed[100 * CHUNK + 5]! ^= 1
  changed.fill(0, 200 * CHUNK, 203 * CHUNK)
  const wish = { comparedBytes: bytes.length, writtenBytes: CHUNK, zeroedBytes: 3 * CHUNK, sameBytes: bytes.length - 4 * CHUNK }
  const { verifiedBytes: none, ...dry } = await deploy(path('target'), await imageOf(changed), { isDry: true })
  assert.deepEqual([dry, none], [wish, 0])
  assert.ok((await readFile(path('target'))).equals(bytes), 'a dry run changes nothing')
  const { verifiedBytes, ...done } = await deploy(path('target'), await imageOf(changed))
  assert.deepEqual(done, wish)
  assert.equal(verifiedBytes, 8 * MiB + CHUNK, 'two windows, and the head')
  assert.ok((await readFile(path('target'))).equals(changed))
})

test('zeros over data free the room of a file', { skip: lacking('fallocate') }, async (t) => {
  const path = await scratch(t)
  await writeFile(path('target'), randomBytes(16 * MiB))
  const image = Buffer.concat([disk('a'), Buffer.alloc(16 * MiB - CHUNK)])
  await deploy(path('target'), await imageOf(image))
  assert.ok((await stat(path('target'))).blocks * 512 < MiB)
  assert.ok((await readFile(path('target'))).equals(image))
})

test('a file that is absent is made; one that is shorter grows', async (t) => {
  const path = await scratch(t)
  const bytes = disk('ab..c', 77)
  await deploy(path('new'), await imageOf(bytes))
  assert.ok((await readFile(path('new'))).equals(bytes))
  await truncate(path('new'), CHUNK + 9)
  await deploy(path('new'), await imageOf(bytes, false))
  assert.ok((await readFile(path('new'))).equals(bytes))
})

test('while it is not finished its head is zeros, whoever stops it and when', async (t) => {
  const path = await scratch(t)
  const before = disk('x'.repeat(640))
  const image = await imageOf(disk('y'.repeat(640)))
  await writeFile(path('target'), before)
  const stop = new AbortController()
  const onProgress = ({ writtenBytes }: { writtenBytes: number }) => writtenBytes > 4 * MiB && stop.abort()
  await assert.rejects(deploy(path('target'), image, { signal: stop.signal, onProgress }), { code: 'cancelled' })
  const half = await readFile(path('target'))
  assert.ok(half.subarray(0, CHUNK).every((byte) => byte === 0))
  assert.ok(half.includes('chunk y') && half.includes('chunk x'))
  const done = await deploy(path('target'), image)
  assert.ok(done.sameBytes >= 4 * MiB, 'what was there already is not written again')
  assert.ok((await readFile(path('target'))).includes('chunk y'))
})

test('an image that cannot be read leaves a disk that no firmware starts, and says what failed', async (t) => {
  const path = await scratch(t)
  await writeFile(path('target'), disk('x'.repeat(200)))
  const image = await imageOf(disk('y'.repeat(200)))
  const failing: ImageDisk = {
    ...image,
    read: (offset, length) => (offset > 6 * MiB ? Promise.reject(new Error('the line is cut')) : image.read(offset, length)),
  }
  await assert.rejects(deploy(path('target'), failing), /the line is cut/)
  assert.ok((await readFile(path('target'))).subarray(0, CHUNK).every((byte) => byte === 0))
})

test('a medium that keeps other bytes than it was given is told of, and stays without a head', async (t) => {
  const path = await scratch(t)
  const image = await imageOf(disk('y'.repeat(100)))
  await writeFile(path('target'), disk('x'.repeat(100)))
  const target = await Target.open(path('target'), { isReadOnly: false, leastBytes: image.size })
  const sync = target.sync.bind(target)
  target.sync = async () => {
    await sync()
    const medium = await open(path('target'), 'r+')
    await medium.write(Buffer.from('bit rot'), 0, 7, 80 * CHUNK)
    await medium.close()
  }
  const { signal } = new AbortController()
  await assert.rejects(writeDisk({ image, target, patches: [], isDry: false, signal, onProgress: () => {} }), {
    code: 'corrupt',
    message: /at byte 5242880: the medium is failing/,
  })
  await target.close()
  assert.ok((await readFile(path('target'))).subarray(0, CHUNK).every((byte) => byte === 0))
})

const gptTools = { skip: lacking('sgdisk') }
async function partitioned(t: TestContext): Promise<Buffer> {
  const path = await scratch(t)
  await writeFile(path('disk'), '')
  await truncate(path('disk'), 12 * MiB)
  await run('sgdisk', '-n', '1:2048:+1M', '-n', '2:4096:0', path('disk'))
  const bytes = await readFile(path('disk'))
  bytes.write('a file system', 2 * MiB)
  return bytes
}

test(
  'on a larger disk the partition table is one that sgdisk finds no fault with, and a second run writes nothing',
  gptTools,
  async (t) => {
    const path = await scratch(t)
    const image = await imageOf(await partitioned(t))
    for (const bytes of [12 * MiB + 512, 12 * MiB + 20 * 512, 64 * MiB]) {
      await writeFile(path('target'), Buffer.alloc(bytes, 0xee))
      const once = async () => {
        const target = await Target.open(path('target'), { isReadOnly: false, leastBytes: image.size })
        const { patches } = await bootPatches(image, target.source(), target.sectorBytes)
        await target.close()
        return deploy(path('target'), image, { patches })
      }
      await once()
      assert.match(await run('sgdisk', '-v', path('target')), /No problems found/)
      const again = await once()
      assert.equal(again.writtenBytes + again.zeroedBytes, 0)
    }
  },
)

test('the second copy of an earlier GPT goes where the image has none', gptTools, async (t) => {
  const path = await scratch(t)
  await writeFile(path('target'), await partitioned(t))
  const image = await imageOf(disk('abc'))
  const target = await Target.open(path('target'), { isReadOnly: false, leastBytes: image.size })
  const { patches } = await bootPatches(image, target.source(), target.sectorBytes)
  await target.close()
  await deploy(path('target'), image, { patches })
  const bytes = await readFile(path('target'))
  assert.ok(!bytes.includes('EFI PART'))
  assert.ok(bytes.includes('a file system'), 'and nothing else beyond the image')
})

const root = process.getuid?.() === 0 ? lacking('losetup', 'blkdiscard') : 'needs root'
/** A block device of a file, with its own head, holders and claims. */
async function loop(t: TestContext, path: string): Promise<string> {
  const device = execFileSync('losetup', ['--find', '--show', path], { encoding: 'utf8' }).trim()
  t.after(() => execFileSync('losetup', ['--detach', device]))
  return device
}

test('a block device: compared, written, zeroed by its own command, read back from the medium', { skip: root }, async (t) => {
  const path = await scratch(t)
  await writeFile(path('medium'), randomBytes(24 * MiB))
  const device = await loop(t, path('medium'))
  const bytes = Buffer.concat([disk('abc'.repeat(40)), Buffer.alloc(12 * MiB)])
  const done = await deploy(device, await imageOf(bytes))
  assert.equal(done.writtenBytes, 120 * CHUNK)
  assert.equal(done.zeroedBytes, 12 * MiB)
  assert.equal((await deploy(device, await imageOf(bytes))).sameBytes, bytes.length)
  assert.ok((await readFile(path('medium'))).subarray(0, bytes.length).equals(bytes))
  assert.ok((await stat(path('medium'))).blocks * 512 < 13 * MiB)
})

test('a device that is claimed, mounted or too small is refused, and nothing is written', { skip: root }, async (t) => {
  const path = await scratch(t)
  await writeFile(path('medium'), Buffer.alloc(8 * MiB))
  const device = await loop(t, path('medium'))
  const wish = { isReadOnly: false, leastBytes: MiB }
  const first = await Target.open(device, wish)
  await assert.rejects(Target.open(device, wish), { code: 'conflict', message: /in use/ })
  await first.close()
  await assert.rejects(Target.open(device, { ...wish, leastBytes: 9 * MiB }), { code: 'too-large', message: /8388608 bytes/ })
  await run('mke2fs', '-q', '-t', 'ext4', device)
  const place = path('place')
  execFileSync('mkdir', [place])
  execFileSync('mount', [device, place])
  try {
    await assert.rejects(Target.open(device, wish), (error: Error) => error.message.includes(`mounted at ${place}`))
  } finally {
    execFileSync('umount', [place])
  }
  await assert.rejects(Target.open(path('medium'), wish), (error: Error) =>
    error.message.includes(`${device} shows it as a disk`),
  )
  await assert.rejects(Target.open('/dev/no-such-disk', wish), { code: 'not-found' })
  await assert.rejects(Target.open('/dev/null', wish), { code: 'invalid-request' })
})
