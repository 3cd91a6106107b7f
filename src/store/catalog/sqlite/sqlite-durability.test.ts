import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, statSync } from 'node:fs'
import { cp, mkdtemp, rm, rmdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { type TestContext, test } from 'node:test'
import { isServiceError, ServiceError } from '../../../base/errors.ts'
import type { Failpoint } from '../../../base/failpoint.ts'
import type { BlobStore } from '../../blobs/blob-store.ts'
import { FsBlobStore } from '../../blobs/fs/fs-blob-store.ts'
import { MemoryBlobStore } from '../../blobs/memory/memory-blob-store.ts'
import { anImage } from '../catalog.suite.ts'
import type { Catalog, ImageRecord } from '../catalog.ts'
import { Journal, type JournalLimits } from '../journal.ts'
import { segmentKey } from '../journal-format.ts'
import { migrate, schemaOf } from './migrations.ts'
import { rebuildCatalog } from './rebuild-catalog.ts'
import { SqliteCatalog } from './sqlite-catalog.ts'
import { WriteQueue } from './write-queue.ts'

/** A folder for one test. */
async function folderFor(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-catalog-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  return folder
}

const smallJournal: JournalLimits = { segments: 6, smallBytes: 2_000, blobBytes: 4_000, snapshotBytes: 10_000 }

/** Every record that the journal keeps. */
async function contentsOf(catalog: Catalog) {
  const images: ImageRecord[] = []
  for (const deleted of [false, true]) {
    for (const hidden of [false, true]) {
      images.push(...(await catalog.images.list({ viewer: { all: true }, deleted, hidden, limit: 10_000 })))
    }
  }
  images.sort((a, b) => (a.id < b.id ? -1 : 1))
  const members = await Promise.all(images.map(({ id }) => catalog.images.members(id)))
  const documents = [...(await catalog.documents.list('thing')), ...(await catalog.documents.list('user'))]
  const named = await catalog.documents.list('user', { index: { name: 'name', value: 'n1' } })
  const usage = [await catalog.images.usage('p1'), await catalog.images.usage('p2')]
  return { images, members, documents, named, usage }
}

/** Creates, changes and deletes a bit of everything. */
async function liveThrough(catalog: Catalog, turns: number): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) {
    const image = anImage({ name: `i${turn}`, tags: [`t${turn % 3}`], properties: { turn: String(turn) } })
    await catalog.write(async (tx) => {
      await tx.images.create(image)
      await tx.images.putMember({ imageId: image.id, memberId: 'p2', status: 'pending', createdAt: turn, updatedAt: turn })
      await tx.documents.put('thing', `k${turn % 5}`, { turn }, { indexes: { parity: String(turn % 2) } })
      await tx.documents.put('token', `k${turn}`, { turn })
    })
    await catalog.write(async (tx) => {
      if (turn % 3 === 0) await tx.images.update(image.id, 1, { owner: 'p2', status: 'deleted', size: 3 })
      if (turn % 4 === 0) await tx.images.deleteMember(image.id, 'p2')
      if (turn % 5 === 0) await tx.documents.delete('thing', `k${(turn + 2) % 5}`)
      await tx.documents.deleteWhere('user', { name: 'name', value: 'n1' })
      await tx.documents.put('user', `u${turn}`, {}, { unique: { name: 'n1' } }) // handed from one to the next
    })
  }
}

test('a rebuilt catalog holds every record, through merges, snapshots and the lot', async (t) => {
  const folder = await folderFor(t)
  const journal = new MemoryBlobStore()
  const [path, again] = [join(folder, 'catalog.db'), join(folder, 'again.db')]
  const catalog = await SqliteCatalog.open({ path, journal, journalLimits: smallJournal })
  await liveThrough(catalog, 40)
  const wanted = await contentsOf(catalog)
  await catalog.close()
  assert.ok(
    (await Array.fromAsync(journal.list(''))).some((key) => key.endsWith('complete')),
    'there was a snapshot',
  )

  const report = await rebuildCatalog({ path: again, journal })
  assert.deepEqual(report.problems, [])
  assert.equal(report.images, 40)
  const rebuilt = await SqliteCatalog.open({ path: again, journal, journalLimits: smallJournal })
  t.after(() => rebuilt.close())
  assert.deepEqual(await contentsOf(rebuilt), wanted)
  assert.equal((await rebuilt.documents.list('token')).length, 0)
  await liveThrough(rebuilt, 1)
})

test('a rebuild reports damage, gives back the rest, and takes no place that is taken', async (t) => {
  const folder = await folderFor(t)
  const journal = new MemoryBlobStore()
  const catalog = await SqliteCatalog.open({ path: join(folder, 'catalog.db'), journal })
  for (const key of ['a', 'b', 'c']) await catalog.write((tx) => tx.documents.put('thing', key, key))
  await catalog.close()
  const second = segmentKey({ first: 2, last: 2 })
  await journal.delete(second)
  await journal.put(second, [new TextEncoder().encode('garbage')])

  await assert.rejects(rebuildCatalog({ path: join(folder, 'catalog.db'), journal }), { code: 'conflict' })
  await assert.rejects(rebuildCatalog({ path: join(folder, 'none.db'), journal: new MemoryBlobStore() }), { code: 'not-found' })
  assert.equal(existsSync(join(folder, 'none.db')), false)
  const report = await rebuildCatalog({ path: join(folder, 'again.db'), journal })
  assert.match(report.problems.join(), new RegExp(second))
  const rebuilt = await SqliteCatalog.open({ path: join(folder, 'again.db') })
  t.after(() => rebuilt.close())
  assert.deepEqual(
    (await rebuilt.documents.list('thing')).map(({ key }) => key),
    ['a', 'c'],
  )
})

test('a database put back from an older backup takes what the journal has after it', async (t) => {
  const folder = await folderFor(t)
  const journal = new MemoryBlobStore()
  const [path, backup] = [join(folder, 'catalog.db'), join(folder, 'backup.db')]
  let catalog = await SqliteCatalog.open({ path, journal })
  await liveThrough(catalog, 3)
  await catalog.close()
  await cp(path, backup)
  catalog = await SqliteCatalog.open({ path, journal })
  await liveThrough(catalog, 3)
  const wanted = await contentsOf(catalog)
  await catalog.close()

  const restored = await SqliteCatalog.open({ path: backup, journal })
  assert.deepEqual(await contentsOf(restored), wanted)
  await liveThrough(restored, 1)
  await restored.close()
  await assert.rejects(SqliteCatalog.open({ path: join(folder, 'empty.db'), journal }), { code: 'corrupt', message: /rebuild/ })
})

test('the journal has what the database has, whatever becomes of the objects that were written', async (t) => {
  const folder = await folderFor(t)
  const journal = new MemoryBlobStore()
  const catalog = await SqliteCatalog.open({ path: join(folder, 'catalog.db'), journal })
  const body = { turn: 1 }
  await Promise.all([
    catalog.write(({ documents }) => documents.put('thing', 'a', body)),
    catalog.write(async ({ documents }) => {
      body.turn = 2
      await documents.put('thing', 'b', body)
      body.turn = 3
    }),
  ])
  const before = await contentsOf(catalog)
  assert.deepEqual(
    before.documents.map(({ body }) => body),
    [{ turn: 1 }, { turn: 2 }],
  )
  await catalog.close()
  await rebuildCatalog({ path: join(folder, 'again.db'), journal })
  const rebuilt = await SqliteCatalog.open({ path: join(folder, 'again.db'), journal })
  t.after(() => rebuilt.close())
  assert.deepEqual(await contentsOf(rebuilt), before)
})

test('a journal that is new to a database is made whole when it is opened', async (t) => {
  const folder = await folderFor(t)
  const path = join(folder, 'catalog.db')
  const journal = new MemoryBlobStore()
  let catalog = await SqliteCatalog.open({ path, journal: new MemoryBlobStore() })
  await liveThrough(catalog, 3)
  await catalog.close()
  catalog = await SqliteCatalog.open({ path, journal })
  await liveThrough(catalog, 1)
  const wanted = await contentsOf(catalog)
  await catalog.close()
  await rebuildCatalog({ path: join(folder, 'again.db'), journal })
  const rebuilt = await SqliteCatalog.open({ path: join(folder, 'again.db') })
  t.after(() => rebuilt.close())
  assert.deepEqual(await contentsOf(rebuilt), wanted)
})

// ---------------------------------------------------------------- failing disks

test('after a failed sync every write is refused, and reads go on', async (t) => {
  const database = new DatabaseSync(':memory:')
  t.after(() => database.close())
  migrate(database)
  let broken = false
  const queue = new WriteQueue({
    database,
    makeWriter: () => {
      database.exec('INSERT INTO project_usage VALUES (hex(randomblob(8)), 1, 1, 1, 1)')
      return {} as never // the works below do not use it
    },
    sync: async () => {
      if (broken) throw Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' })
    },
    journal: undefined,
    onCommit: () => {},
    afterBatch: async () => {},
  })
  assert.equal(await queue.write(async () => 1), 1)
  broken = true
  const refused = { code: 'unavailable', message: /restart the service/ }
  await assert.rejects(
    queue.write(async () => 2),
    refused,
  )
  broken = false
  await assert.rejects(
    queue.write(async () => 3),
    refused,
  )
})

test('a write that waits for the journal when a disk fails elsewhere is told why', async (t) => {
  const database = new DatabaseSync(':memory:')
  t.after(() => database.close())
  migrate(database)
  const [reached, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const blobs = new MemoryBlobStore()
  const put = blobs.put.bind(blobs)
  const slow = Object.assign(blobs, {
    async put(key: string, parts: readonly Uint8Array[]) {
      reached.resolve()
      await released.promise
      await put(key, parts)
    },
  })
  const queue = new WriteQueue({
    database,
    makeWriter: (changed) => {
      changed({ documentDeleted: { kind: 'thing', key: 'x' } })
      return {} as never // the work below does not use it
    },
    sync: async () => {},
    journal: await Journal.open(slow),
    onCommit: () => {},
    afterBatch: async () => {},
  })
  const writing = queue.write(async () => 1)
  await reached.promise
  queue.poison(new ServiceError('unavailable', 'a checkpoint failed'))
  released.resolve()
  await assert.rejects(writing, { code: 'unavailable', message: 'a checkpoint failed' })
})

test('while the journal is full, changes are refused and undone; what it was owed is written first when it can', async (t) => {
  const folder = await folderFor(t)
  const blobs = new MemoryBlobStore()
  let full = false
  const journal: BlobStore = {
    get: (key) => blobs.get(key),
    read: (key, offset, length) => blobs.read(key, offset, length),
    size: (key) => blobs.size(key),
    list: (prefix) => blobs.list(prefix),
    delete: (key) => blobs.delete(key),
    put: async (key, parts) => {
      if (full) throw new ServiceError('no-space', 'the store is full')
      await blobs.put(key, parts)
    },
  }
  const path = join(folder, 'catalog.db')
  const catalog = await SqliteCatalog.open({ path, journal })
  const put = (key: string) => catalog.write((tx) => tx.documents.put('thing', key, key))
  await put('before')
  full = true
  await assert.rejects(put('first'), { code: 'no-space' })
  await assert.rejects(put('second'), { code: 'no-space' })
  assert.equal(await catalog.documents.get('thing', 'second'), undefined)
  await catalog.write((tx) => tx.documents.put('token', 'a', {})) // needs no journal
  full = false
  await put('after')
  const wanted = await contentsOf(catalog)
  await catalog.close()
  await rebuildCatalog({ path: join(folder, 'again.db'), journal })
  const rebuilt = await SqliteCatalog.open({ path: join(folder, 'again.db') })
  t.after(() => rebuilt.close())
  assert.deepEqual(await contentsOf(rebuilt), wanted)
})

test('a full disk is told as no-space, leaves nothing half-done, and the catalog goes on once there is room', async (t) => {
  const disk = await mkdtemp(join(tmpdir(), 'imprint-small-disk-'))
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk])
  if (mounted.status !== 0) return t.skip('needs root, to mount a small tmpfs')
  t.after(async () => {
    spawnSync('umount', ['-l', disk])
    await rmdir(disk)
  })
  const catalog = await SqliteCatalog.open({ path: join(disk, 'catalog.db') })
  const kept = new Set<string>()
  let refused = 0
  for (let n = 0; n < 40; n += 1) {
    const key = `k${n}`
    const pair = catalog.write(async (tx) => {
      await tx.documents.put('thing', `${key}a`, 'x'.repeat(50_000))
      await tx.documents.put('thing', `${key}b`, 'x'.repeat(50_000))
    })
    await pair.then(
      () => kept.add(`${key}a`).add(`${key}b`),
      (error: unknown) => {
        assert.ok(isServiceError(error, 'no-space'), String(error))
        refused += 1
      },
    )
  }
  assert.ok(kept.size > 0 && refused > 0)
  assert.deepEqual(new Set((await catalog.documents.list('thing')).map(({ key }) => key)), kept)
  assert.equal(spawnSync('mount', ['-o', 'remount,size=16m', disk]).status, 0)
  await catalog.write((tx) => tx.documents.put('thing', 'room', 'x'.repeat(50_000)))
  assert.ok(await catalog.documents.get('thing', 'room'))
  await catalog.close()
})

test('the write-ahead log is checkpointed on the way and starts anew', async (t) => {
  const folder = await folderFor(t)
  const path = join(folder, 'catalog.db')
  const problems: unknown[] = []
  const catalog = await SqliteCatalog.open({ path, onProblem: (error) => problems.push(error) })
  const large = 'x'.repeat(1_000_000)
  let longest = 0
  for (let n = 0; n < 60; n += 1) {
    await catalog.write((tx) => tx.documents.put('thing', 'same', `${n}${large}`))
    longest = Math.max(longest, statSync(`${path}-wal`).size)
  }
  assert.ok(longest < 50_000_000, `60 MB written, the log grew to ${longest} bytes`)
  await catalog.close()
  assert.equal(existsSync(`${path}-wal`), false)
  assert.deepEqual(problems, [])
})

// ---------------------------------------------------------------- migrations

test('a database of a newer program is refused by name, and stays as it is', async (t) => {
  const folder = await folderFor(t)
  const path = join(folder, 'catalog.db')
  await (await SqliteCatalog.open({ path })).close()
  const database = new DatabaseSync(path)
  database.exec('PRAGMA user_version = 999')
  await assert.rejects(SqliteCatalog.open({ path }), { code: 'unsupported', message: /schema 999.*newer program/ })
  assert.equal(schemaOf(database), 999)
  database.close()
})

test('migrations run once each, in order, and one that fails leaves the schema before it', () => {
  const database = new DatabaseSync(':memory:')
  const steps = ['CREATE TABLE a (x)', 'INSERT INTO a VALUES (1)', 'INSERT INTO a VALUES (2); INSERT INTO nowhere VALUES (1)']
  migrate(database, steps.slice(0, 1))
  assert.throws(() => migrate(database, steps))
  assert.equal(schemaOf(database), 2)
  assert.throws(() => migrate(database, steps))
  assert.equal(database.prepare('SELECT count(*) AS n FROM a').get()?.n, 1)
  migrate(database, [...steps.slice(0, 2), 'INSERT INTO a VALUES (3)'])
  assert.equal(schemaOf(database), 3)
  database.close()
})

// ---------------------------------------------------------------- kill -9

/** Writes until it is killed, and prints each key once its write is acknowledged. */
const writer = `
  const [, folder] = process.argv
  const { FsBlobStore } = await import(${JSON.stringify(new URL('../../blobs/fs/fs-blob-store.ts', import.meta.url).href)})
  const { SqliteCatalog } = await import(${JSON.stringify(new URL('./sqlite-catalog.ts', import.meta.url).href)})
  const { anImage } = await import(${JSON.stringify(new URL('../catalog.suite.ts', import.meta.url).href)})
  const journal = await FsBlobStore.open(folder + '/blobs')
  const journalLimits = ${JSON.stringify(smallJournal)}
  const catalog = await SqliteCatalog.open({ path: folder + '/catalog.db', journal, journalLimits })
  const lane = async (name) => {
    for (let n = 0; ; n += 1) {
      const image = anImage()
      await catalog.write(async (tx) => {
        await tx.images.create(image)
        await tx.documents.put('thing', image.id, name + n)
      })
      process.stdout.write(image.id + '\\n')
    }
  }
  await Promise.all(['a', 'b', 'c'].map(lane))
`

async function acknowledgedUntilKilled(folder: string, env: NodeJS.ProcessEnv, killAfter = Number.POSITIVE_INFINITY) {
  const child = spawn(process.execPath, ['--input-type=module', '-e', writer, folder], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let errors = ''
  child.stderr.on('data', (data) => {
    errors += data
  })
  const gone = new Promise<NodeJS.Signals | null>((resolve) => child.once('exit', (_code, signal) => resolve(signal)))
  const acknowledged: string[] = []
  for await (const id of createInterface({ input: child.stdout })) {
    if (id.length === 36) acknowledged.push(id) // the last line may be cut
    if (acknowledged.length >= killAfter) child.kill('SIGKILL')
  }
  assert.equal(await gone, 'SIGKILL', errors)
  return acknowledged
}

async function assertKept(t: TestContext, folder: string, acknowledged: readonly string[]): Promise<void> {
  const journal = await FsBlobStore.open(join(folder, 'blobs'))
  const path = join(folder, 'catalog.db')
  const opened = await SqliteCatalog.open({ path, journal, journalLimits: smallJournal })
  for (const id of acknowledged) {
    assert.ok(await opened.images.get(id), 'an acknowledged image is lost')
    assert.ok(await opened.documents.get('thing', id), 'an acknowledged document is lost')
  }
  const wanted = await contentsOf(opened)
  assert.equal(wanted.images.length, wanted.documents.length, 'half a transaction')
  await opened.write((tx) => tx.documents.put('thing', randomUUID(), 'goes on'))
  const atLast = await contentsOf(opened)
  await opened.close()
  const again = join(folder, `${randomUUID()}.db`)
  assert.deepEqual((await rebuildCatalog({ path: again, journal })).problems, [])
  const rebuilt = await SqliteCatalog.open({ path: again })
  t.after(() => rebuilt.close())
  assert.deepEqual(await contentsOf(rebuilt), atLast)
}

const killedAt: readonly `${Failpoint}:${number}`[] = [
  'catalog:migrating:1',
  'catalog:migrated:1',
  'catalog:committed:9',
  'catalog:durable:9',
  'journal:put:9',
  'journal:compacted:3',
]
for (const failpoint of killedAt) {
  test(`killed at ${failpoint}, it keeps what was acknowledged, in the database and in the journal`, async (t) => {
    const folder = await folderFor(t)
    await assertKept(t, folder, await acknowledgedUntilKilled(folder, { IMPRINT_FAILPOINT: failpoint }))
  })
}

test('killed again and again at no special moment, it keeps what was acknowledged', async (t) => {
  const folder = await folderFor(t)
  const acknowledged: string[] = []
  for (const count of [5, 41]) acknowledged.push(...(await acknowledgedUntilKilled(folder, {}, count)))
  await assertKept(t, folder, acknowledged)
})
