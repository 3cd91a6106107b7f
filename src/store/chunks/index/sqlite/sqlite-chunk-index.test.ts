import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { statSync } from 'node:fs'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { chunkIndexSuite } from '../chunk-index.suite.ts'
import { migrations } from './migrations.ts'
import { SqliteChunkIndex } from './sqlite-chunk-index.ts'

const freshPath = async () => join(await mkdtemp(join(tmpdir(), 'imprint-index-')), 'index.db')

chunkIndexSuite('sqlite in memory', () => SqliteChunkIndex.open(':memory:'))
chunkIndexSuite('sqlite in a file', async () => SqliteChunkIndex.open(await freshPath()))

test('leases end with the process, sessions and manifests do not', async () => {
  const path = await freshPath()
  const first = await SqliteChunkIndex.open(path)
  await first.begin('p')
  const kept = await first.begin('p')
  await first.complete(kept, { digest: new Uint8Array(32).fill(1), fileBytes: 1, allocatedBytes: 1 })
  await first.commit(kept)
  const session = await first.beginSession('s', 'p')
  await first.close()
  const second = await SqliteChunkIndex.open(path)
  assert.deepEqual(
    (await second.candidates(0)).manifests.map(({ committed }) => committed),
    [false, true],
  )
  assert.equal((await second.findSession('s'))?.hold, session)
  await second.close()
})

test('what is distrusted stays so after a restart', async () => {
  const path = await freshPath()
  const digest = new Uint8Array(32).fill(7)
  const one = Uint32Array.of(1)
  const columns = {
    digests: digest,
    offsets: one,
    storedBytes: one,
    plainBytes: one,
    kinds: new Uint8Array(1),
    codecs: new Uint8Array(1),
  }
  const first = await SqliteChunkIndex.open(path)
  await first.addPack('a'.repeat(32), 100, columns, { chunks: new Uint32Array(0), holds: new Float64Array(0) }, [])
  await first.distrust('a'.repeat(32), digest)
  await first.close()
  const second = await SqliteChunkIndex.open(path)
  assert.deepEqual([...(await second.claim(await second.begin('p'), digest))], [0])
  await second.close()
})

test('an index of the first version goes on with what it knows', async () => {
  const path = await freshPath()
  const old = new DatabaseSync(path)
  old.exec(migrations[0]!)
  old.exec(`PRAGMA user_version = 1;
    INSERT INTO packs(id, name, state, bytes, live_chunks, live_bytes, live_plain) VALUES(1, '${'a'.repeat(32)}', 1, 100, 2, 20, 200);
    INSERT INTO chunks VALUES(1, x'${'11'.repeat(32)}', 1, 8, 10, 100, 0, 0), (2, x'${'22'.repeat(32)}', 1, 18, 10, 100, 0, 0);
    INSERT INTO manifests VALUES(1, x'${'aa'.repeat(32)}', 'alice', 2, NULL, 200, 200, 20, 0), (2, NULL, 'bob', 0, 's', NULL, NULL, 10, 0);
    INSERT INTO refs VALUES(1, 1), (2, 1), (2, 2)`)
  old.close()
  const index = await SqliteChunkIndex.open(path)
  const both = Uint8Array.from({ length: 64 }, (_, at) => (at < 32 ? 0x11 : 0x22))
  assert.deepEqual(await index.findSession('s'), { hold: 2, owner: 'bob' })
  assert.deepEqual([...(await index.claimOwned(2, both))], [0, 100])
  assert.deepEqual([...(await index.claimOwned(await index.beginSession('t', 'alice'), both))], [100, 100])
  assert.deepEqual(await index.findManifest(new Uint8Array(32).fill(0xaa)), { hold: 1, storedBytes: 20 })
  assert.equal((await index.unreferenced(0, 10, 10)).length, 0)
  await index.close()
})

test('a file that is no index is refused with what to do about it', async () => {
  const path = await freshPath()
  await writeFile(path, 'this is not a database, and long enough to be looked at as one'.repeat(100))
  await assert.rejects(SqliteChunkIndex.open(path), { code: 'corrupt', message: /imprint store rebuild/ })
})

test('a disk that is full in the middle of a batch takes nothing of it, and every call is told so', {
  skip: spawnSync('prlimit', ['--version']).error ? 'prlimit is not installed' : false,
}, async () => {
  const path = await freshPath()
  const index = await SqliteChunkIndex.open(path)
  const noRefs = { chunks: new Uint32Array(0), holds: new Float64Array(0) }
  const add = (pack: string, chunks: number) => {
    const [zeros, ones] = [new Uint32Array(chunks), new Uint32Array(chunks).fill(1)]
    const flags = new Uint8Array(chunks)
    const digests = new Uint8Array(randomBytes(32 * chunks))
    const columns = { digests, offsets: zeros, storedBytes: ones, plainBytes: ones, kinds: flags, codecs: flags }
    return index.addPack(pack.repeat(32), 100, columns, noRefs, [])
  }
  const filesEndAt = (bytes: number | 'unlimited') => spawnSync('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`])
  try {
    await add('a', 10)
    filesEndAt(statSync(`${path}-wal`).size + 1_000_000)
    // the first call is a batch of its own; of the others the large one does not fit into the cache, and the small ones would fit
    const batch = [add('0', 1), add('b', 120_000), add('c', 5), add('d', 5)]
    const outcomes = await Promise.allSettled(batch)
    filesEndAt('unlimited')
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['fulfilled', 'rejected', 'rejected', 'rejected'],
    )
    const known = (await index.packs()).map(({ pack }) => pack[0]).sort()
    assert.deepEqual(known, ['0', 'a'])
    await add('c', 5)
  } finally {
    filesEndAt('unlimited')
    await index.close()
  }
})
