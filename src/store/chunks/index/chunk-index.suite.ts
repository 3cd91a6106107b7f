import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import type { ChunkColumns, ChunkIndex, RefColumns } from './chunk-index.ts'

const digest = (name: string) => new Uint8Array(createHash('sha256').update(name).digest())
const digests = (...names: string[]) => new Uint8Array(Buffer.concat(names.map(digest)))
const noRefs: RefColumns = { chunks: new Uint32Array(0), holds: new Float64Array(0) }
const PLAIN = 100
const STORED = 10
/** A pack of chunks of 10 stored and 100 plain bytes each. */
const packOf = (...names: string[]): ChunkColumns => ({
  digests: digests(...names),
  offsets: Uint32Array.from(names, (_, index) => 8 + STORED * index),
  storedBytes: new Uint32Array(names.length).fill(STORED),
  plainBytes: new Uint32Array(names.length).fill(PLAIN),
  kinds: new Uint8Array(names.length),
  codecs: new Uint8Array(names.length),
})
/** The hold keeps all chunks of the pack. */
const refsTo = (hold: number, count: number): RefColumns => ({
  chunks: Uint32Array.from({ length: count }, (_, index) => index),
  holds: new Float64Array(count).fill(hold),
})
const pack = (letter: string) => letter.repeat(32)

/**
 * What every ChunkIndex must do.
 * @param open a fresh, empty index
 */
export function chunkIndexSuite(adapter: string, open: () => Promise<ChunkIndex>): void {
  const must = (title: string, check: (index: ChunkIndex) => Promise<void>) =>
    test(`${adapter} must ${title}`, async () => {
      const index = await open()
      try {
        await check(index)
      } finally {
        await index.close()
      }
    })
  const manifest = async (index: ChunkIndex, owner: string, name: string, ...chunks: string[]) => {
    const hold = await index.begin(owner)
    await index.claim(hold, digests(...chunks))
    await index.complete(hold, { digest: digest(name), fileBytes: 1, allocatedBytes: 1 })
    await index.commit(hold)
    return hold
  }

  must('find what packs brought, and say where it lies', async (index) => {
    await index.addPack(pack('a'), 1000, packOf('x', 'y'), noRefs, [])
    const hold = await index.begin('p')
    assert.deepEqual([...(await index.claim(hold, digests('y', 'z', 'x')))], [PLAIN, 0, PLAIN])
    const found = await index.locate(digests('z', 'y'))
    assert.deepEqual([...found.pack], [-1, 0])
    assert.deepEqual(found.packs, [pack('a')])
    assert.equal(found.offsets[1], 18)
  })

  must('not remove a chunk that a hold claimed, whatever the order', async (index) => {
    await index.addPack(pack('a'), 1000, packOf('x', 'y', 'z'), noRefs, [])
    const { lastChunk } = await index.candidates(0)
    const free = await index.unreferenced(0, lastChunk, 10)
    assert.equal(free.length, 3)
    await index.claim(await index.begin('p'), digests('y'))
    assert.deepEqual(await index.removeChunks(free), { chunks: 2, bytes: 2 * STORED })
    assert.deepEqual([...(await index.claim(await index.begin('p'), digests('x', 'y', 'z')))], [0, PLAIN, 0])
  })

  must('not list a lease among what may go, and list it once it is committed or abandoned', async (index) => {
    const leased = await index.begin('p')
    assert.deepEqual((await index.candidates(0)).manifests, [])
    await index.complete(leased, { digest: digest('m'), fileBytes: 1, allocatedBytes: 1 })
    assert.deepEqual((await index.candidates(0)).manifests, [])
    await index.commit(leased)
    const given = await index.begin('p')
    await index.abandon(given)
    assert.deepEqual(
      (await index.candidates(0)).manifests.map(({ hold, committed }) => [hold, committed]),
      [
        [leased, true],
        [given, false],
      ],
    )
    await assert.rejects(index.claim(given, digests('x')), { code: 'conflict' })
  })

  must('not remove rows of leases, even when it is told to', async (index) => {
    const hold = await index.begin('p')
    await index.addPack(pack('a'), 1000, packOf('x'), refsTo(hold, 1), [])
    while (await index.removeManifests([hold], Date.now() + 1));
    assert.equal((await index.unreferenced(0, 100, 10)).length, 0)
  })

  must('count stored and exclusive bytes of manifests that share chunks', async (index) => {
    await index.addPack(pack('a'), 1000, packOf('x', 'y', 'z'), noRefs, [])
    const one = await manifest(index, 'p', 'one', 'x', 'y')
    await manifest(index, 'q', 'two', 'y', 'z')
    assert.equal((await index.findManifest(digest('one')))?.storedBytes, 2 * STORED)
    assert.deepEqual(await index.exclusiveBytes(one, digest('one'), 0, 100, null), { bytes: STORED, last: 0 })
    const own = await index.exclusiveBytes(one, digest('one'), 0, 100, 'p')
    assert.equal(own.bytes, 2 * STORED, 'what others store does not show to the owner')
    const step = await index.exclusiveBytes(one, digest('one'), 0, 1, null)
    assert.ok(step.last > 0)
    await manifest(index, 'q', 'one', 'x', 'y') // the same file again is no other manifest
    assert.equal((await index.exclusiveBytes(one, digest('one'), 0, 100, null)).bytes, STORED)
    await index.drop(digest('two'))
    assert.equal((await index.exclusiveBytes(one, digest('one'), 0, 100, null)).bytes, 2 * STORED)
    const users = await index.manifestsUsing(digests('y'))
    assert.deepEqual(
      users.map((user) => Buffer.compare(user, digest('one'))),
      [0, 0],
    )
  })

  must("drop one owner's row of a manifest and leave those of others, and of the owner's other records", async (index) => {
    await index.addPack(pack('a'), 1000, packOf('x', 'y'), noRefs, [])
    const rows = [
      await manifest(index, 'alice', 'one', 'x', 'y'),
      await manifest(index, 'alice', 'one', 'x', 'y'),
      await manifest(index, 'bob', 'one', 'x', 'y'),
    ]
    const committed = async () =>
      (await index.candidates(0)).manifests.filter((row) => row.committed).map(({ hold }) => rows.indexOf(hold))
    await index.drop(digest('one'), 'mallory')
    assert.deepEqual(await committed(), [0, 1, 2])
    await index.drop(digest('one'), 'bob')
    assert.deepEqual(await committed(), [0, 1])
    const bob = await index.beginSession('s', 'bob')
    assert.deepEqual([...(await index.claimOwned(bob, digests('x')))], [0])
    await index.drop(digest('one'), 'alice')
    assert.deepEqual(await committed(), [1])
    assert.equal((await index.findManifest(digest('one')))?.hold, rows[1])
    const alice = await index.beginSession('t', 'alice')
    assert.deepEqual([...(await index.claimOwned(alice, digests('x')))], [PLAIN])
    await index.drop(digest('one'))
    assert.deepEqual(await committed(), [])
  })

  must('not give up what was committed', async (index) => {
    await index.addPack(pack('a'), 1000, packOf('x'), noRefs, [])
    const hold = await manifest(index, 'p', 'one', 'x')
    await index.abandon(hold)
    assert.deepEqual((await index.candidates(0)).manifests, [{ hold, owner: 'p', digest: digest('one'), committed: true }])
    assert.equal((await index.findManifest(digest('one')))?.hold, hold)
  })

  must('show an owner only what manifests of that owner use', async (index) => {
    await index.addPack(pack('a'), 1000, packOf('x', 'y'), noRefs, [])
    await manifest(index, 'alice', 'one', 'x')
    const alice = await index.beginSession('s1', 'alice')
    const bob = await index.beginSession('s2', 'bob')
    assert.deepEqual([...(await index.claimOwned(alice, digests('x', 'y', 'z')))], [PLAIN, 0, 0])
    assert.deepEqual([...(await index.claimOwned(bob, digests('x', 'y', 'z')))], [0, 0, 0])
    assert.deepEqual(await index.findSession('s2'), { hold: bob, owner: 'bob' })
    assert.equal(await index.findSession('s3'), undefined)
  })

  must('move chunks out of a pack only where it is said so, and forget a pack only when it is empty', async (index) => {
    const hold = await index.begin('p')
    await index.addPack(pack('a'), 1000, packOf('x', 'y'), refsTo(hold, 2), [])
    await index.addPack(pack('b'), 1000, packOf('x'), noRefs, [])
    assert.deepEqual((await index.locate(digests('x'))).packs, [pack('a')])
    await index.addPack(pack('c'), 1000, packOf('x', 'y'), noRefs, [pack('a')])
    assert.deepEqual((await index.locate(digests('x'))).packs, [pack('c')])
    assert.deepEqual(
      (await index.packs()).map(({ liveChunks, liveBytes }) => [liveChunks, liveBytes]),
      [
        [0, 0],
        [0, 0],
        [2, 2 * STORED],
      ],
    )
    assert.equal(await index.removePack(pack('c')), false)
    assert.equal(await index.removePack(pack('a')), true)
    assert.equal(await index.removePack(pack('a')), false)
  })

  must('take chunks of a lost pack for lacking until they come again', async (index) => {
    const hold = await index.begin('p')
    await index.addPack(pack('a'), 1000, packOf('x', 'y'), refsTo(hold, 2), [])
    await index.losePack(pack('a'))
    assert.deepEqual([...(await index.claim(hold, digests('x', 'y')))], [0, 0])
    await index.addPack(pack('b'), 1000, packOf('x'), noRefs, [])
    assert.deepEqual([...(await index.claim(hold, digests('x', 'y')))], [PLAIN, 0])
    assert.equal((await index.totals()).chunks, 2)
  })

  must('take a distrusted chunk for lacking until a new copy comes, which all that use it find', async (index) => {
    const one = await index.begin('p')
    await index.addPack(pack('a'), 1000, packOf('x', 'y'), refsTo(one, 2), [])
    await index.complete(one, { digest: digest('one'), fileBytes: 1, allocatedBytes: 1 })
    await index.commit(one)
    await index.distrust(pack('a'), digests('x', 'z'))
    assert.deepEqual((await index.distrusted(pack('a'))).length, 32)
    const session = await index.beginSession('s', 'p')
    assert.deepEqual([...(await index.claimOwned(session, digests('x', 'y')))], [0, PLAIN])
    const two = await index.begin('q')
    assert.deepEqual([...(await index.claim(two, digests('x', 'y')))], [0, PLAIN])
    assert.deepEqual((await index.locate(digests('x'))).packs, [pack('a')], 'it can still be tried')
    assert.deepEqual(await index.manifestsUsing(digests('x')), [digest('one')])

    const longer = { ...packOf('x'), storedBytes: Uint32Array.of(STORED + 5) }
    assert.equal((await index.addPack(pack('b'), 500, longer, refsTo(two, 1), [])).length, 0)
    assert.deepEqual((await index.locate(digests('x'))).packs, [pack('b')])
    assert.deepEqual(
      (await index.packs()).map(({ liveChunks, liveBytes, isSuspect }) => [liveChunks, liveBytes, isSuspect]),
      [
        [1, STORED, true],
        [1, STORED + 5, false],
      ],
    )
    assert.deepEqual([...(await index.claim(await index.begin('q'), digests('x')))], [PLAIN])
    assert.deepEqual([...(await index.claimOwned(session, digests('x')))], [PLAIN])
    assert.equal((await index.findManifest(digest('one')))?.storedBytes, 2 * STORED + 5)
    await index.complete(two, { digest: digest('two'), fileBytes: 1, allocatedBytes: 1 })
    assert.equal((await index.findManifest(digest('two')))?.storedBytes, 2 * STORED + 5, 'counted once')
  })

  must('distrust a copy, and not the chunk that is elsewhere by now', async (index) => {
    const hold = await index.begin('p')
    await index.addPack(pack('a'), 1000, packOf('x', 'y'), refsTo(hold, 2), [])
    await index.addPack(pack('b'), 1000, packOf('x'), noRefs, [pack('a')])
    await index.distrust(pack('a'), digests('x', 'y'))
    assert.deepEqual([...(await index.claim(hold, digests('x', 'y')))], [PLAIN, 0])
    await index.trust(pack('b'), digests('y'))
    assert.deepEqual([...(await index.claim(hold, digests('y')))], [0])
    await index.addPack(pack('a'), 1000, packOf('y'), noRefs, [])
    assert.deepEqual([...(await index.claim(hold, digests('y')))], [0], 'the same pack again is no new copy')
    await index.trust(pack('a'), digests('y'))
    assert.deepEqual([...(await index.claim(hold, digests('y')))], [PLAIN])
  })

  must('enter a pack that lists a chunk twice', async (index) => {
    const hold = await index.begin('p')
    await index.addPack(pack('a'), 1000, packOf('x', 'y', 'x'), refsTo(hold, 3), [])
    assert.equal((await index.totals()).chunks, 2)
    assert.deepEqual([...(await index.claim(hold, digests('x', 'x', 'y')))], [PLAIN, PLAIN, PLAIN])
    await index.complete(hold, { digest: digest('m'), fileBytes: 1, allocatedBytes: 1 })
    assert.equal((await index.findManifest(digest('m')))?.storedBytes, 2 * STORED)
  })

  must('say which chunks of a pack stayed in others', async (index) => {
    assert.equal((await index.addPack(pack('a'), 1000, packOf('x', 'y'), noRefs, [])).length, 0)
    assert.deepEqual(await index.addPack(pack('b'), 1000, packOf('z', 'y'), noRefs, []), digests('y'))
    assert.equal((await index.addPack(pack('b'), 1000, packOf('z'), noRefs, [])).length, 0)
  })

  must('give a hold that is complete or given up nothing more to keep', async (index) => {
    await index.addPack(pack('a'), 1000, packOf('x'), noRefs, [])
    const complete = await manifest(index, 'p', 'one')
    const leased = await index.begin('p')
    await index.complete(leased, { digest: digest('two'), fileBytes: 1, allocatedBytes: 1 })
    const given = await index.beginSession('s', 'p')
    await index.abandon(given)
    for (const hold of [complete, leased, given]) {
      await assert.rejects(index.claim(hold, digests('x')), { code: 'conflict' })
      await assert.rejects(index.claimOwned(hold, digests('x')), { code: 'conflict' })
      await index.addPack(pack('b'), 1000, packOf('y'), refsTo(hold, 1), [])
    }
    assert.equal((await index.unreferenced(0, 100, 10)).length, 2)
  })

  must('do all of a batch that can be done, when one call of it fails', async (index) => {
    const calls = [index.begin('p'), index.claim(999, digests('x')), index.begin('p')] as const
    const results = await Promise.allSettled(calls)
    assert.deepEqual(
      results.map(({ status }) => status),
      ['fulfilled', 'rejected', 'fulfilled'],
    )
  })

  must('refuse calls after it was closed', async (index) => {
    await index.close()
    await assert.rejects(index.begin('p'), { code: 'unavailable' })
  })
}
