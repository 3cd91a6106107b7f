import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ServiceError } from '../../base/errors.ts'
import type { BlobStore } from '../blobs/blob-store.ts'
import { MemoryBlobStore } from '../blobs/memory/memory-blob-store.ts'
import { Journal, type JournalLimits } from './journal.ts'
import type { JournalChange } from './journal-change.ts'
import { decodeJournal, encodeJournal, parseJournalKey, segmentKey, snapshotPartKey } from './journal-format.ts'
import { replayJournal } from './journal-replay.ts'

const limits: JournalLimits = { segments: 4, smallBytes: 400, blobBytes: 1_000, snapshotBytes: 1_500 }
const keysOf = (blobs: BlobStore) => Array.fromAsync(blobs.list(''))

const line = (key: string, version: number): string =>
  JSON.stringify({
    document: { kind: 'thing', key, version, body: null, indexes: {}, unique: {}, expiresAt: null },
  } satisfies JournalChange)

/** The version of each document after a replay. */
async function replayed(blobs: BlobStore, after = 0) {
  const versions = new Map<string, number>()
  const report = await replayJournal(blobs, after, async (changes) => {
    for (const change of changes) if ('document' in change) versions.set(change.document.key, change.document.version)
  })
  return { versions: Object.fromEntries(versions), ...report }
}

test('a journal blob gives back its lines', () => {
  const lines = [line('a', 1), line('é 😀', 2)]
  const header = { segment: { first: 3, last: 4 } }
  assert.deepEqual(decodeJournal(encodeJournal(header, lines), header), { lines, problems: [] })
})

test('any flipped bit or cut of a journal blob is reported, and the lines that hold are read', () => {
  const lines = Array.from({ length: 5 }, (_, i) => line(`k${i}`, i))
  const header = { segment: { first: 1, last: 5 } }
  const whole = encodeJournal(header, lines)
  const place = fc.nat(whole.length - 1)
  fc.assert(
    fc.property(place, fc.nat(7), fc.option(place, { nil: undefined }), (at, bit, cut) => {
      const damaged = whole.slice(0, cut ?? whole.length)
      if (cut === undefined) damaged[at] = whole[at]! ^ (1 << bit)
      const { lines: read, problems } = decodeJournal(damaged, header)
      assert.notDeepEqual(problems, [])
      for (const one of read) assert.ok(lines.includes(one))
      if (cut === undefined) assert.ok(read.length >= lines.length - 2, 'one bit costs its line, or two if it is a line feed')
    }),
  )
})

test('a journal blob under the name of another is reported', () => {
  const bytes = encodeJournal({ segment: { first: 1, last: 1 } }, [line('a', 1)])
  assert.match(decodeJournal(bytes, { segment: { first: 2, last: 2 } }).problems.join(), /first line/)
})

test('journal keys are read as they are written, and others are not journal keys', () => {
  assert.deepEqual(parseJournalKey(segmentKey({ first: 7, last: 12 })), { kind: 'segment', segment: { first: 7, last: 12 } })
  assert.deepEqual(parseJournalKey(snapshotPartKey(12, 3)), { kind: 'part', upTo: 12, part: 3 })
  assert.equal(parseJournalKey('journal/else'), undefined)
})

test('small segments are merged into one that reads the same', async () => {
  const blobs = new MemoryBlobStore()
  const journal = await Journal.open(blobs, limits)
  for (let n = 1; n <= 3; n += 1) await journal.append({ first: n, last: n }, [line('a', n)])
  await journal.merge()
  assert.deepEqual(await keysOf(blobs), [segmentKey({ first: 1, last: 3 })])
  assert.deepEqual(await replayed(blobs), { versions: { a: 3 }, last: 3, changes: 3, problems: [] })
  await journal.append({ first: 4, last: 4 }, [line('b', 1)])
  assert.equal(journal.last, 4)
})

test('many segments are compacted beside the writes, and a snapshot replaces what came before it', async () => {
  const blobs = new MemoryBlobStore()
  const journal = await Journal.open(blobs, limits)
  const versions: Record<string, number> = {}
  const pages = async function* () {
    const stored = Object.entries(versions)
    for (let at = 0; at < stored.length; at += 3) yield stored.slice(at, at + 3).map(([key, version]) => line(key, version))
  }
  for (let n = 1; n <= 60; n += 1) {
    versions[`k${n % 7}`] = n
    await journal.append({ first: n, last: n }, [line(`k${n % 7}`, n)])
    journal.compactIfDue(pages, (error) => assert.fail(String(error)))
    if (n % 5 === 0) await journal.settled()
  }
  await journal.settled()
  assert.ok((await keysOf(blobs)).length < 20)
  assert.ok(journal.start > 0, 'a snapshot was made')
  assert.deepEqual((await replayed(blobs)).versions, versions)
  assert.deepEqual((await replayed(blobs)).problems, [])
})

test('opening clears what a stopped compaction left, and keeps all that counts', async () => {
  const blobs = new MemoryBlobStore()
  const put = (first: number, last: number) =>
    blobs.put(segmentKey({ first, last }), [encodeJournal({ segment: { first, last } }, [line('a', last)])])
  await put(1, 1)
  await put(2, 2)
  await put(1, 2) // merged, and the two not yet deleted
  await put(3, 3)
  await blobs.put(snapshotPartKey(2, 0), [encodeJournal({ snapshot: 2, part: 0 }, [line('a', 2)])]) // not complete
  const journal = await Journal.open(blobs, limits)
  assert.deepEqual(await keysOf(blobs), [segmentKey({ first: 1, last: 2 }), segmentKey({ first: 3, last: 3 })])
  assert.equal(journal.last, 3)
  await journal.snapshot(async function* () {
    yield [line('a', 3)]
  })
  await put(2, 3) // was replaced by the snapshot, and not yet deleted
  assert.equal((await Journal.open(blobs, limits)).last, 3)
  assert.deepEqual((await replayed(blobs)).versions, { a: 3 })
  assert.ok(!(await keysOf(blobs)).includes(segmentKey({ first: 2, last: 3 })))
})

test('a missing, a torn and a foreign blob are reported by name, and the rest is applied', async () => {
  const blobs = new MemoryBlobStore()
  const journal = await Journal.open(blobs, limits)
  for (let n = 1; n <= 4; n += 1) await journal.append({ first: n, last: n }, [line(`k${n}`, n)])
  await blobs.delete(segmentKey({ first: 2, last: 2 }))
  const torn = segmentKey({ first: 3, last: 3 })
  const bytes = await blobs.get(torn)
  await blobs.delete(torn)
  await blobs.put(torn, [bytes.slice(0, bytes.length - 4)])
  await blobs.put('journal/foreign', [bytes])
  const { versions, problems } = await replayed(blobs)
  assert.deepEqual(versions, { k1: 1, k3: 3, k4: 4 })
  assert.match(problems.join('\n'), /journal\/foreign is no blob/)
  assert.match(problems.join('\n'), /transactions 2 to 2 are missing/)
  assert.match(problems.join('\n'), new RegExp(`${torn}: the last line is cut off`))
})

test('a compaction that fails is told, costs nothing, and is tried again later', async () => {
  const blobs = new MemoryBlobStore()
  let full = false
  const filling: BlobStore = {
    get: (key) => blobs.get(key),
    read: (key, offset, length) => blobs.read(key, offset, length),
    size: (key) => blobs.size(key),
    list: (prefix) => blobs.list(prefix),
    delete: (key) => blobs.delete(key),
    put: async (key, parts) => {
      if (full) throw new ServiceError('no-space', 'full')
      await blobs.put(key, parts)
    },
  }
  const journal = await Journal.open(filling, limits)
  const problems: unknown[] = []
  let n = 0
  const pages = async function* () {
    yield [line('a', n)]
  }
  const append = async () => {
    n += 1
    await journal.append({ first: n, last: n }, [line('a', n)])
  }
  for (let i = 0; i < 4; i += 1) await append()
  full = true
  journal.compactIfDue(pages, (error) => problems.push(error))
  await journal.settled()
  full = false
  assert.equal(problems.length, 1)
  assert.deepEqual((await replayed(blobs)).versions, { a: 4 })
  for (let i = 0; i < 4; i += 1) await append()
  journal.compactIfDue(pages, (error) => problems.push(error))
  await journal.settled()
  assert.equal(problems.length, 1)
  assert.deepEqual((await replayed(blobs)).versions, { a: 8 })
  assert.deepEqual((await replayed(blobs)).problems, [])
  assert.ok((await keysOf(blobs)).length < 8)
})
