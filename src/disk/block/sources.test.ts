import assert from 'node:assert/strict'
import { open, truncate, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { digestOf, patterned, randomDisk, writeSource } from '../../../test/fixtures/disk/disks.ts'
import { lacking, scratch } from '../../../test/fixtures/disk/tools.ts'
import type { BlockSource, Extent } from './block-source.ts'
import { ByteLru } from './byte-lru.ts'
import { checked } from './checked.ts'
import { openFileSource } from './file-source.ts'
import { bytesSource, memorySource } from './memory-source.ts'
import { merged } from './run-merger.ts'
import { isZero } from './zero.ts'

const MiB = 1024 * 1024
const extentsOf = (source: BlockSource, offset = 0, length = source.size - offset): Promise<Extent[]> =>
  Array.fromAsync(source.extents(offset, length))

test('a memory source reads its pieces and zeros between them', async () => {
  const source = checked(
    memorySource(2 ** 50, [
      { offset: 10, bytes: Uint8Array.of(1, 2) },
      { offset: 2 ** 50 - 1, bytes: Uint8Array.of(3) },
    ]),
    'memory',
  )
  assert.deepEqual([...(await source.read(8, 6))], [0, 0, 1, 2, 0, 0])
  assert.deepEqual([...(await source.read(11, 2))], [2, 0])
  assert.deepEqual([...(await source.read(2 ** 50 - 2, 2))], [0, 3])
  assert.deepEqual(
    (await extentsOf(source)).map(({ kind, length }) => [kind, length]),
    [
      ['hole', 10],
      ['data', 2],
      ['hole', 2 ** 50 - 13],
      ['data', 1],
    ],
  )
  assert.deepEqual(await extentsOf(source, 11, 0), [])
  assert.throws(() => memorySource(5, [{ offset: 4, bytes: new Uint8Array(2) }]))
})

test('checked refuses ranges outside and layers that break the contract', async () => {
  const source = bytesSource(new Uint8Array(10))
  for (const [offset, length] of [[11, 0] as const, [5, 6] as const, [-1, 1] as const, [0, Number.NaN] as const]) {
    await assert.rejects(checked(source, 'x').read(offset, length), { code: 'invalid-request' })
  }
  await assert.rejects(checked({ ...source, read: async () => new Uint8Array(3) }, 'short').read(0, 4), {
    code: 'corrupt',
    message: /short/,
  })
  const gap = {
    ...source,
    extents: async function* () {
      yield { offset: 1, length: 9, kind: 'data' } as const
    },
  }
  await assert.rejects(extentsOf(checked(gap, 'gap')), { code: 'corrupt', message: /gap/ })
  const early = {
    ...source,
    extents: async function* () {
      yield { offset: 0, length: 9, kind: 'data' } as const
    },
  }
  await assert.rejects(extentsOf(checked(early, 'early')), { code: 'corrupt', message: /early/ })
})

test('a file source reads a file and knows its holes', { skip: lacking('perl') }, async (t) => {
  const path = (await scratch(t))('disk')
  const disk = randomDisk(3_000_000_000, 20, 9)
  await writeSource(disk, path)
  const file = checked(await openFileSource(path), 'file')
  assert.equal(file.size, disk.size)
  let dataBytes = 0
  for (const { kind, offset, length } of await extentsOf(file)) {
    if (kind !== 'data') continue
    dataBytes += length
    assert.deepEqual(Buffer.from(await file.read(offset, length)), Buffer.from(await disk.read(offset, length)))
  }
  for await (const { kind, offset, length } of disk.extents(0, disk.size)) {
    if (kind === 'data')
      assert.deepEqual(Buffer.from(await file.read(offset, length)), Buffer.from(await disk.read(offset, length)))
  }
  assert.ok(dataBytes < 20 * MiB, `${dataBytes} bytes of data`)
  await file.close()
})

test('a file source finds zeros by reading where the file system cannot be asked', async (t) => {
  const path = (await scratch(t))('disk')
  const disk = randomDisk(20 * MiB + 1, 5, 2)
  await writeSource(disk, path)
  const { PATH } = process.env
  process.env.PATH = '/nowhere'
  t.after(() => {
    process.env.PATH = PATH
  })
  const file = checked(await openFileSource(path), 'file')
  const extents = await extentsOf(file, 1000)
  assert.ok(extents.some(({ kind }) => kind === 'zero'))
  for (const { kind, offset, length } of extents) if (kind !== 'data') assert.ok(isZero(await file.read(offset, length)))
  assert.equal(await digestOf(file), await digestOf(disk))
  await file.close()
})

test('a file without holes is one run, an empty one none, an unwritten one a hole', async (t) => {
  const path = await scratch(t)
  await writeFile(path('full'), patterned(70_000, 1))
  await writeFile(path('empty'), '')
  await writeFile(path('unwritten'), '')
  await truncate(path('unwritten'), 2 ** 40)
  const kinds = async (name: string) => {
    const file = checked(await openFileSource(path(name)), name)
    const found = await extentsOf(file)
    await file.close()
    return found
  }
  assert.deepEqual(await kinds('full'), [{ offset: 0, length: 70_000, kind: 'data' }])
  assert.deepEqual(await kinds('empty'), [])
  assert.deepEqual(await kinds('unwritten'), [{ offset: 0, length: 2 ** 40, kind: 'hole' }])
})

test('what is no file, or stops being one, is told so', async (t) => {
  const path = await scratch(t)
  await assert.rejects(openFileSource(path('absent')), { code: 'not-found', message: /absent/ })
  await assert.rejects(openFileSource(path('')), { code: 'invalid-request' })
  await writeFile(path('shrinking'), new Uint8Array(100))
  const file = await openFileSource(path('shrinking'))
  const handle = await open(path('shrinking'), 'r+')
  await handle.truncate(50)
  await handle.close()
  await assert.rejects(file.read(0, 100), { code: 'conflict' })
  await file.close()
})

test('isZero looks at every byte', () => {
  for (const length of [0, 1, 511, 4 * MiB, 4 * MiB + 3]) {
    const bytes = new Uint8Array(length)
    assert.equal(isZero(bytes), true)
    for (const at of [0, Math.floor(length / 2), length - 1]) {
      if (at < 0 || at >= length) continue
      bytes[at] = 1
      assert.equal(isZero(bytes), false, `${at} of ${length}`)
      bytes[at] = 0
    }
  }
})

test('merged joins neighbours of one kind', async () => {
  const runs = [
    { offset: 0, length: 1, kind: 'data' },
    { offset: 1, length: 2, kind: 'data' },
    { offset: 3, length: 4, kind: 'hole' },
    { offset: 7, length: 1, kind: 'zero' },
    { offset: 8, length: 1, kind: 'zero' },
  ] as const
  assert.deepEqual(await Array.fromAsync(merged(runs)), [
    { offset: 0, length: 3, kind: 'data' },
    { offset: 3, length: 4, kind: 'hole' },
    { offset: 7, length: 2, kind: 'zero' },
  ])
})

test('the buffer cache keeps what was used last, loads once, and forgets failures', async () => {
  const cache = new ByteLru(100 * 1024)
  const loaded: number[] = []
  const get = (key: number, bytes = 40 * 1024) =>
    cache.get(key, async () => {
      loaded.push(key)
      return new Uint8Array(bytes)
    })
  await Promise.all([get(1), get(1)])
  await get(2)
  await get(1)
  await get(3) // 2 goes
  await get(1)
  await get(2)
  assert.deepEqual(loaded, [1, 2, 3, 2])
  await get(4, 1000 * 1024)
  await get(4, 1000 * 1024)
  assert.deepEqual(loaded, [1, 2, 3, 2, 4, 4], 'what is too large is not kept')
  for (let key = 10; key < 200; key += 1) await get(key, 4)
  const before = loaded.length
  await get(10, 4)
  assert.equal(loaded.length, before + 1, 'of very small ones no more are kept than their keeping costs')
  let tries = 0
  const failing = () => cache.get(9, () => Promise.reject(new Error(`try ${++tries}`)))
  await assert.rejects(failing(), /try 1/)
  await assert.rejects(failing(), /try 2/)
})
