import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { ServiceError } from '../../src/base/errors.ts'
import type { BlockSource } from '../../src/disk/block/block-source.ts'
import { checked } from '../../src/disk/block/checked.ts'
import { bytesSource } from '../../src/disk/block/memory-source.ts'
import type { Package } from '../../src/disk/guest/software/package.ts'
import { openBerkeley } from '../../src/disk/guest/software/rpm/berkeley.ts'
import { readHeader } from '../../src/disk/guest/software/rpm/header.ts'
import { openNdb } from '../../src/disk/guest/software/rpm/ndb.ts'
import { rpm } from '../../src/disk/guest/software/rpm/rpm.ts'
import { openSqlite } from '../../src/disk/guest/software/rpm/sqlite.ts'
import { missingTool } from '../peers/command.ts'
import { numbersOf } from './aged-tree.ts'
import { LINK, withTree } from './guest-tree.ts'
import { berkeleyOf, ndbOf, type RpmDatabases, rpmDatabases, saidByRpm } from './rpm-databases.ts'

const skip = missingTool('rpm', 'rpmbuild', 'mke2fs')
const skipBerkeley = skip || missingTool('db5.3_load')
let made: RpmDatabases | undefined
const databases = () => (made ??= rpmDatabases())

/** As FORMAT of rpm-databases.ts. */
function lineOf({ name, version, architecture, source, installedBytes }: Package): string {
  const [, epoch = '(none)', plain = ''] = /^(?:(\d+):)?(.*)$/.exec(version)!
  const { name: sourceName, version: sourceVersion } = source ?? { name, version: plain }
  return `${name} ${epoch} ${plain} ${architecture} ${sourceName}-${sourceVersion}.src.rpm ${installedBytes}`
}

async function linesOf(files: Record<string, string | Uint8Array>): Promise<string[]> {
  const found = await withTree(files, (tree) => rpm.read(tree))
  assert.deepEqual(found?.notes, [])
  return found.packages.map(lineOf).sort()
}

/** SQL is run on a copy of rpm's database; what that leaves is shown while it is open, and after. */
function changed(sql: string): { whileOpen: Record<string, Buffer>; after: Buffer } {
  const folder = mkdtempSync(join(tmpdir(), 'imprint-sql-'))
  try {
    const path = join(folder, 'rpmdb.sqlite')
    writeFileSync(path, databases().sqlite)
    const database = new DatabaseSync(path)
    database.exec(`PRAGMA foreign_keys=OFF; PRAGMA wal_autocheckpoint=0; ${sql}`)
    const whileOpen: Record<string, Buffer> = { 'var/lib/rpm/rpmdb.sqlite': readFileSync(path) }
    try {
      whileOpen['var/lib/rpm/rpmdb.sqlite-wal'] = readFileSync(`${path}-wal`)
    } catch {} // it is in another mode
    database.close()
    return { whileOpen, after: readFileSync(path) }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('rpmdb.sqlite has the packages that rpm -qa says, every field', { skip }, async () => {
  const { sqlite, said } = databases()
  assert.ok(said.length > 20)
  assert.deepEqual(await linesOf({ 'var/lib/rpm/rpmdb.sqlite': sqlite }), said)
  const linked = { 'usr/lib/sysimage/rpm/rpmdb.sqlite': sqlite, 'var/lib/rpm': `${LINK}../../usr/lib/sysimage/rpm` }
  assert.deepEqual(await linesOf(linked), said)
})

test('pages of every size, and none of what was deleted', { skip }, async () => {
  const { said } = databases()
  for (const bytes of [512, 1024, 65536]) {
    const { after } = changed(`PRAGMA journal_mode=DELETE; PRAGMA page_size=${bytes}; VACUUM`)
    assert.equal(after.readUInt16BE(16), bytes === 65536 ? 1 : bytes)
    assert.deepEqual(await linesOf({ 'var/lib/rpm/rpmdb.sqlite': after }), said, `${bytes}`)
  }
  const { after } = changed('DELETE FROM Packages WHERE hnum % 2 = 0')
  assert.equal((await linesOf({ 'var/lib/rpm/rpmdb.sqlite': after })).length, Math.ceil(said.length / 2))
})

test('what is committed in the write-ahead log counts, and nothing after it', { skip }, async () => {
  const { said } = databases()
  const { whileOpen } = changed(
    'PRAGMA journal_mode=WAL; DELETE FROM Packages WHERE hnum > 5; PRAGMA cache_size=1; BEGIN; DELETE FROM Packages; INSERT INTO Packages(blob) SELECT zeroblob(200000) FROM Name',
  )
  const log = whileOpen['var/lib/rpm/rpmdb.sqlite-wal']!
  assert.ok(log.length > 100_000)
  assert.equal((await linesOf(whileOpen)).length, 5)
  const torn = Buffer.from(log)
  torn[60] = torn[60]! ^ 1
  assert.deepEqual(await linesOf({ ...whileOpen, 'var/lib/rpm/rpmdb.sqlite-wal': torn }), said)
  assert.deepEqual(await linesOf({ ...whileOpen, 'var/lib/rpm/rpmdb.sqlite-wal': '' }), said)
  const journal = await withTree({ ...whileOpen, 'var/lib/rpm/rpmdb.sqlite-journal': 'x' }, (tree) => rpm.read(tree))
  assert.match(journal?.notes.join() ?? '', /was not finished/)
})

test('Packages of Berkeley DB, in both byte orders', { skip: skipBerkeley }, async () => {
  const { headers, said } = databases()
  for (const options of [{}, { isBig: true }, { pageBytes: 512 }, { pageBytes: 65536 }]) {
    const bytes = berkeleyOf(headers, options)
    assert.deepEqual(await linesOf({ 'var/lib/rpm/Packages': bytes }), said, JSON.stringify(options))
    const folder = mkdtempSync(join(tmpdir(), 'imprint-bdb-'))
    writeFileSync(join(folder, 'Packages'), bytes)
    assert.deepEqual(saidByRpm(folder, 'bdb_ro'), said)
    rmSync(folder, { recursive: true })
  }
})

test('Packages.db', { skip }, async () => {
  const { headers, said } = databases()
  assert.deepEqual(await linesOf({ 'usr/lib/sysimage/rpm/Packages.db': ndbOf(headers) }), said)
})

test('a second database is told of', { skip }, async () => {
  const { sqlite, headers } = databases()
  const files = { 'var/lib/rpm/rpmdb.sqlite': sqlite, 'var/lib/rpm/Packages.db': ndbOf(headers) }
  const found = await withTree(files, (tree) => rpm.read(tree))
  assert.deepEqual(found?.notes, ['/var/lib/rpm/Packages.db is another rpm database and was not read'])
  const broken = await withTree({ ...files, 'var/lib/rpm/rpmdb.sqlite': 'x' }, (tree) => rpm.read(tree))
  assert.equal(broken?.packages.length, headers.length)
  assert.match(broken.notes.join(), /rpmdb\.sqlite: the rpm database has 1 bytes/)
  assert.equal(await withTree({ 'etc/passwd': '' }, (tree) => rpm.read(tree)), undefined)
})

const copy = (bytes: Uint8Array, change: (bytes: Buffer) => void): Buffer => {
  const changedBytes = Buffer.from(bytes)
  change(changedBytes)
  return changedBytes
}

test('databases that lie are refused, each with its reason', { skip: skipBerkeley }, async () => {
  const { sqlite, headers } = databases()
  const ndb = ndbOf(headers)
  const berkeley = berkeleyOf(headers)
  const rename = 'ALTER TABLE Packages RENAME TO Real;'
  const cases: readonly (readonly [file: string, bytes: Buffer, says: RegExp])[] = [
    ['rpmdb.sqlite', changed(`${rename} CREATE VIEW Packages AS SELECT * FROM Real`).after, /a view named Packages/],
    ['rpmdb.sqlite', changed(rename).after, /no table Packages/],
    ['rpmdb.sqlite', changed(`${rename} CREATE TABLE Packages(blob, hnum)`).after, /not as rpm makes it/],
    ['rpmdb.sqlite', copy(sqlite, (b) => b.writeUInt16BE(3, 16)), /pages of 3 bytes/],
    ['rpmdb.sqlite', copy(sqlite, (b) => b.writeUInt8(3, 19)), /read version 3/],
    ['rpmdb.sqlite', copy(sqlite, (b) => b.writeUInt8(9, 100)), /page 1 of type 9/],
    ['rpmdb.sqlite', copy(sqlite, (b) => b.writeUInt32BE(2, 56)), /encoding 2/],
    ['rpmdb.sqlite', sqlite.subarray(0, 4096), /has no page|points at page/],
    ['Packages.db', copy(ndb, (b) => b.writeUInt32LE(2 ** 30, 12)), /1073741824 pages of slots/],
    ['Packages.db', copy(ndb, (b) => b.writeUInt32LE(1, 4)), /version 1/],
    ['Packages.db', copy(ndb, (b) => b.fill(0xff, 88, 4096)), /no package that can be read/],
    ['Packages', copy(berkeley, (b) => b.writeUInt32LE(0, 20)), /pages of 0 bytes/],
    ['Packages', copy(berkeley, (b) => b.writeUInt32LE(2 ** 31, 32)), /last page/],
    ['Packages', copy(berkeley, (b) => b.writeUInt32LE(2 ** 30, 72)), /buckets/],
    ['Packages', copy(berkeley, (b) => b.writeUInt8(1, 24)), /encrypted/],
  ]
  for (const [file, bytes, says] of cases) {
    const reading = withTree({ [`var/lib/rpm/${file}`]: bytes }, (tree) => rpm.read(tree))
    await assert.rejects(reading, (error) => error instanceof ServiceError && says.test(error.message), String(says))
  }
})

test('a trigger on Packages is nothing to a reader', { skip }, async () => {
  const { after } = changed('CREATE TRIGGER packages AFTER INSERT ON Packages BEGIN DELETE FROM Packages; END')
  assert.deepEqual(await linesOf({ 'var/lib/rpm/rpmdb.sqlite': after }), databases().said)
})

test('pages that lead round in circles end', { skip: skipBerkeley }, async () => {
  const { sqlite, headers } = databases()
  // every overflow page of SQLite, and every page of Berkeley DB, is its own next
  const circles = copy(sqlite, (b) => {
    for (let page = 2; page * 4096 < b.length; page += 1) if (b[page * 4096] === 0) b.writeUInt32BE(page + 1, page * 4096)
  })
  const found = await withTree({ 'var/lib/rpm/rpmdb.sqlite': circles }, (tree) => rpm.read(tree))
  assert.match(found!.notes.join(), /uses page \d+ twice|ends after/)
  const berkeley = copy(berkeleyOf(headers), (b) => {
    for (let at = 4096; at < b.length; at += 4096) b.writeUInt32LE(b.readUInt32LE(at + 8), at + 16)
  })
  const other = await withTree({ 'var/lib/rpm/Packages': berkeley }, (tree) => rpm.read(tree))
  assert.match(other!.notes.join(), /uses page \d+ twice/)
})

test('one row that many cells point at is one package', { skip }, async () => {
  const small = changed('PRAGMA journal_mode=DELETE; DELETE FROM Packages WHERE hnum <> 5; VACUUM').after
  const many = copy(small, (b) => {
    for (let page = 1; page * 4096 < b.length; page += 1) {
      const at = page * 4096
      const isLeafOfOne = b[at] === 13 && b.readUInt16BE(at + 3) === 1
      if (!isLeafOfOne) continue
      b.writeUInt16BE(100, at + 3)
      for (let cell = 1; cell < 100; cell += 1) b.writeUInt16BE(b.readUInt16BE(at + 8), at + 8 + cell * 2)
    }
  })
  const found = await withTree({ 'var/lib/rpm/rpmdb.sqlite': many }, (tree) => rpm.read(tree))
  assert.equal(found?.packages.length, 1)
  assert.match(found.notes.join(), /has row 5 after row 5/)
})

test('headers that lie are refused, each with its reason', { skip }, async () => {
  const blob = databases().headers[0]!.blob
  const entryOf = (b: Buffer, tag: number) => {
    for (let at = 8; ; at += 16) if (b.readUInt32BE(at) === tag) return at
  }
  const poke = (tag: number, field: number, value: number) => copy(blob, (b) => b.writeUInt32BE(value, entryOf(b, tag) + field))
  const cases: readonly (readonly [bytes: Buffer, says: RegExp])[] = [
    [copy(blob, (b) => b.writeUInt32BE(2 ** 31, 0)), /2147483648 entries/],
    [copy(blob, (b) => b.writeUInt32BE(2 ** 31, 4)), /2147483648 bytes of data/],
    [copy(blob, (b) => b.writeUInt32BE(b.readUInt32BE(4) - 1, 4)), /bytes that says it has/],
    [poke(1000, 8, 2 ** 31), /tag 1000/],
    [poke(1009, 12, 2 ** 30), /tag 1009/],
    [poke(1009, 8, 1), /not aligned/],
    [poke(1000, 4, 77), /type 77/],
    [poke(1000, 4, 7), /not a string/],
    [poke(1000, 0, 999), /without a name/],
    [poke(63, 12, 5), /region of type 7 and 5 bytes/],
    [copy(blob, (b) => b.fill(0x41, 8 + 16 * b.readUInt32BE(0))), /NUL/],
  ]
  for (const [bytes, says] of cases) {
    const reading = readHeader({ bytes: bytes.length, prefix: async (count) => bytes.subarray(0, count) }, '/x')
    await assert.rejects(reading, { code: 'invalid-image', message: says }, String(says))
  }
})

const RUNS = Number(process.env.FUZZ_RUNS ?? 1000)

/** All packages of a database; how many reads that took is bounded. */
async function readAll(source: BlockSource, open: (file: BlockSource) => ReturnType<typeof openNdb>): Promise<number> {
  let [reads, count] = [0, 0]
  const counted: BlockSource = {
    ...source,
    read(offset, length) {
      reads += 1
      assert.ok(reads < 5000, 'it goes round in circles')
      return source.read(offset, length)
    },
  }
  for await (const { blob } of open(checked(counted, 'rpm'))({ add: () => undefined })) {
    count += 1
    await readHeader(blob, '/x').catch((error) => assert.equal(error.code, 'invalid-image', error.stack))
  }
  return count
}

test('mutants of all three databases are read or refused', { skip: skipBerkeley }, async () => {
  const { sqlite, headers } = databases()
  const few = headers.slice(0, 12)
  const others = 'DELETE FROM Packages WHERE hnum > 12; DELETE FROM Name; DELETE FROM Basenames; DELETE FROM Dirnames'
  const small = changed(`PRAGMA journal_mode=DELETE; ${others}; VACUUM`).after
  const log = changed('PRAGMA journal_mode=WAL; DELETE FROM Packages WHERE hnum > 12').whileOpen['var/lib/rpm/rpmdb.sqlite-wal']!
  const kinds = [
    { bytes: small, open: (file: BlockSource) => openSqlite(file, undefined) },
    { bytes: log, open: (file: BlockSource) => openSqlite(bytesSource(sqlite), file) },
    { bytes: ndbOf(few), open: openNdb },
    { bytes: berkeleyOf(few, { pageBytes: 1024 }), open: openBerkeley },
  ]
  const random = numbersOf(7)
  const below = (end: number) => Math.floor(random() * end)
  for (const { bytes, open } of kinds) {
    const mutant = Buffer.from(bytes)
    let opened = 0
    for (let run = 0; run < RUNS / kinds.length; run += 1) {
      const undo: [number, number][] = []
      for (let pokes = 1 + below(4); pokes > 0; pokes -= 1) {
        const start = below(3) === 0 ? below(Math.min(4096, bytes.length)) : below(bytes.length)
        const value = below(3)
        for (let at = start; at < Math.min(bytes.length, start + [1, 2, 4][below(3)]!); at += 1) {
          undo.push([at, mutant[at]!])
          mutant[at] = value === 0 ? 0xff : value === 1 ? 0 : below(256)
        }
      }
      try {
        if ((await readAll(bytesSource(mutant), open)) > 0) opened += 1
      } catch (error) {
        assert.ok(error instanceof ServiceError, `${JSON.stringify(undo)}: ${error instanceof Error ? error.stack : error}`)
      }
      for (const [at, byte] of undo.reverse()) mutant[at] = byte
    }
    assert.ok(opened > 0)
  }
})
