import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { appendFile, mkdtemp, open, rm, truncate, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { MiB } from '../../base/units.ts'
import { sha256Hex } from '../../store/content/digests.ts'
import { numberedBytes, numberedCopy } from './copies.suite.ts'
import { DiskCache, LEAST_CACHE_BYTES } from './disk-cache.ts'

async function scratch(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-cache-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  return folder
}
const opened = (folder: string, maxBytes = LEAST_CACHE_BYTES, now?: () => number) => DiskCache.open(folder, maxBytes, now)
async function fill(cache: DiskCache, from: number, to: number): Promise<void> {
  for (let number = from; number < to; number += 1) await cache.put(numberedCopy(number))
  await cache.settled()
}
/** As a reader would: what does not match its digest is dropped. */
async function has(cache: DiskCache, number: number): Promise<boolean> {
  const { digest, bytes } = numberedCopy(number)
  const kept = await cache.get(digest)
  if (!kept) return false
  if (Buffer.compare(kept.bytes, bytes) === 0) return true
  cache.drop(digest)
  return false
}
async function countOf(cache: DiskCache, from: number, to: number): Promise<number> {
  let count = 0
  for (let number = from; number < to; number += 1) if (await has(cache, number)) count += 1
  return count
}
const filesOf = (folder: string, suffix: string) => readdirSync(folder).filter((name) => name.endsWith(suffix))
const bytesIn = (folder: string) => readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)

test('what was put is there, also after it was opened again, and nothing else is', async (t) => {
  const folder = await scratch(t)
  const cache = await opened(folder)
  await fill(cache, 0, 300)
  assert.equal(await countOf(cache, 0, 400), 300)
  await fill(cache, 100, 200)
  assert.equal(cache.chunks, 300, 'what is there is not put again')
  await cache.close()
  const again = await opened(folder)
  assert.equal(await countOf(again, 0, 400), 300)
  assert.equal(again.bytes, bytesIn(folder))
  await again.close()
})

test('a segment that another process removed while it was written to is written to no more', async (t) => {
  const folder = await scratch(t)
  const writer = await opened(folder)
  await fill(writer, 0, 10)
  for (const name of readdirSync(folder)) await rm(join(folder, name))
  while (writer.chunks > 0) await has(writer, 500) // what is not there makes it look, now and then
  await fill(writer, 10, 30)
  const other = await opened(folder)
  assert.equal(await countOf(other, 0, 30), 20)
  assert.equal(other.bytes, bytesIn(folder))
  await other.close()
  await writer.close()
})

test('what one process adds, another finds; both fill one cache within its bounds', async (t) => {
  const folder = await scratch(t)
  const [one, other] = [await opened(folder), await opened(folder)]
  await fill(one, 0, 50)
  while (!(await has(other, 49))) await new Promise(setImmediate) // it looks now and then
  assert.equal(await countOf(other, 0, 50), 50)
  await Promise.all([fill(one, 50, 5000), fill(other, 5000, 10_000)])
  assert.ok(bytesIn(folder) <= LEAST_CACHE_BYTES + 4 * MiB, `${bytesIn(folder)} bytes`)
  assert.ok((await countOf(one, 0, 10_000)) > 3000)
  await one.close()
  await other.close()
})

test('the segments that were used last stay, also when another process used them', async (t) => {
  const folder = await scratch(t)
  let now = Date.now()
  const tick = () => {
    now += 60_000
    return now
  }
  const cache = await opened(folder, LEAST_CACHE_BYTES, tick)
  await fill(cache, 0, 300)
  await cache.close()
  const reader = await opened(folder, LEAST_CACHE_BYTES, tick)
  const writer = await opened(folder, LEAST_CACHE_BYTES, tick)
  for (let from = 300; from < 15_000; from += 300) {
    await fill(writer, from, from + 300)
    assert.equal(await countOf(reader, 0, 10), 10, `at ${from}`)
  }
  assert.ok(bytesIn(folder) <= LEAST_CACHE_BYTES + 2 * MiB)
  assert.equal(await countOf(writer, 300, 600), 0, 'what nobody read left')
  assert.ok((await countOf(writer, 14_000, 15_000)) > 900)
  await reader.close()
  await writer.close()
})

test('whatever becomes of the files, what is found is right or missing, and new chunks are kept', async (t) => {
  const folder = await scratch(t)
  const damage = fc.record({ file: fc.nat(), kind: fc.constantFrom('flip', 'cut', 'grow', 'remove'), at: fc.nat() })
  let next = 0
  const property = fc.asyncProperty(fc.array(damage, { minLength: 1, maxLength: 5 }), async (damages) => {
    const first = next
    next += 100
    const before = await opened(folder)
    await fill(before, first, first + 50)
    await before.close()
    for (const { file, kind, at } of damages) {
      const names = readdirSync(folder)
      if (names.length === 0) break // all were removed
      const path = join(folder, names[file % names.length]!)
      const { size } = statSync(path)
      if (kind === 'cut') await truncate(path, size === 0 ? 0 : at % size)
      else if (kind === 'grow') await appendFile(path, numberedBytes(at))
      else if (kind === 'remove') await rm(path)
      else if (size > 0) {
        const handle = await open(path, 'r+')
        await handle.write(Uint8Array.of(readFileSync(path)[at % size]! ^ 0x41), 0, 1, at % size)
        await handle.close()
      }
    }
    const after = await opened(folder)
    for (let number = first; number < first + 50; number += 1) {
      const { digest } = numberedCopy(number)
      const kept = await after.get(digest)
      if (kept && Buffer.compare(kept.bytes, numberedBytes(number)) !== 0) {
        after.drop(digest) // what a reader does, who verifies it
        assert.equal(await after.get(digest), undefined)
      }
    }
    await fill(after, first + 50, first + 60)
    assert.equal(await countOf(after, first + 50, first + 60), 10)
    await after.close()
  })
  await fc.assert(property, { numRuns: 30 })
})

test('who is killed at any time leaves a cache in which everything that is found is right', async (t) => {
  const folder = await scratch(t)
  for (let round = 0; round < 5; round += 1) {
    const first = round * 100_000
    const child = spawn(process.execPath, [join(import.meta.dirname, 'kill-child.suite.ts'), folder, String(first)], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, NODE_TEST_CONTEXT: undefined },
    })
    const ended = once(child, 'exit')
    let last = first
    for await (const line of createInterface(child.stdout)) {
      last = Number(line)
      if (last >= first + 64 * (round + 1)) break
    }
    child.kill('SIGKILL')
    await ended
    const cache = await opened(folder)
    let damaged = 0
    for (let number = first; number <= last; number += 1) {
      const kept = await cache.get(numberedCopy(number).digest)
      if (!kept || sha256Hex(kept.bytes) !== sha256Hex(numberedBytes(number))) damaged += 1
    }
    assert.equal(damaged, 0, 'what was said to be written is there: a kill loses no page of the kernel')
    await cache.close()
  }
})

test('remnants of segments go, others are left alone', async (t) => {
  const folder = await scratch(t)
  await writeFile(join(folder, 'old.chunks'), 'half a segment')
  await utimes(join(folder, 'old.chunks'), 1, 1)
  await writeFile(join(folder, 'new.chunks'), 'being made')
  await writeFile(join(folder, 'empty.index'), '')
  await writeFile(join(folder, 'notes.txt'), 'somebody’s')
  const cache = await opened(folder)
  await fill(cache, 0, 20)
  assert.equal(await countOf(cache, 0, 20), 20)
  await cache.close()
  assert.deepEqual(filesOf(folder, '.txt'), ['notes.txt'])
  assert.ok(!readdirSync(folder).includes('old.chunks') && readdirSync(folder).includes('new.chunks'))
})

test('a folder that cannot be one is refused by name; one that cannot be written keeps nothing and harms nobody', async (t) => {
  const folder = await scratch(t)
  await writeFile(join(folder, 'file'), '')
  await assert.rejects(opened(join(folder, 'file')), { code: 'invalid-request', message: /file.*--cache/ })
  const cache = await opened(join(folder, 'gone'))
  await rm(join(folder, 'gone'), { recursive: true })
  await fill(cache, 0, 5)
  assert.equal(await countOf(cache, 0, 5), 0)
  await cache.close()
})
