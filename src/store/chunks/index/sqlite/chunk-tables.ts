import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { ServiceError } from '../../../../base/errors.ts'
import { countOf, DIGEST_BYTES, digestAt, joinDigests } from '../../digests.ts'
import type { ChunkColumns, CompletedManifest, IndexTotals, Locations, ManifestRow, PackRow, RefColumns } from '../chunk-index.ts'

const CACHE_KIB = 8 * 1024
/** Refs that one call may remove: bounds how long the calls behind it wait, to some milliseconds. */
const REFS_A_CALL = 4096
/** Manifests of an owner that `claimOwned` looks through, youngest first. Beyond them it answers "lacking", which is safe. */
const OWNED_MANIFESTS = 512

// manifests.state
const SESSION = 0
const LEASED = 1
const COMMITTED = 2
const DROPPED = 3
// packs.state
const packStates = ['writing', 'sealed', 'lost'] as const
const WRITING = 0
const SEALED = 1
const LOST = 2

/**
 * The database's `user_version` says how many of these it has been through. Chunk ids come from a counter and not from the table,
 * so that none is used twice while a collector holds marks on ids.
 */
const migrations: readonly string[] = [
  `
  CREATE TABLE packs(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, state INTEGER NOT NULL, bytes INTEGER NOT NULL DEFAULT 0,
    live_chunks INTEGER NOT NULL DEFAULT 0, live_bytes INTEGER NOT NULL DEFAULT 0, live_plain INTEGER NOT NULL DEFAULT 0
  ) STRICT;
  CREATE TABLE chunks(
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, pack INTEGER NOT NULL, offset INTEGER NOT NULL,
    stored INTEGER NOT NULL, plain INTEGER NOT NULL, kind INTEGER NOT NULL, codec INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX chunks_by_pack ON chunks(pack, offset);
  CREATE TABLE manifests(
    id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB, owner TEXT NOT NULL, state INTEGER NOT NULL, session TEXT UNIQUE,
    file_bytes INTEGER, allocated_bytes INTEGER, stored_bytes INTEGER NOT NULL DEFAULT 0, touched_at INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX manifests_by_digest ON manifests(digest);
  CREATE INDEX manifests_by_owner ON manifests(owner, id);
  CREATE TABLE refs(chunk INTEGER NOT NULL, manifest INTEGER NOT NULL, PRIMARY KEY(chunk, manifest)) STRICT, WITHOUT ROWID;
  CREATE INDEX refs_by_manifest ON refs(manifest, chunk);
`,
  `
  ALTER TABLE chunks ADD COLUMN distrusted INTEGER NOT NULL DEFAULT 0;
  CREATE INDEX chunks_distrusted ON chunks(pack) WHERE distrusted = 1;
  ALTER TABLE packs ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0;
`,
]

type Row = Record<string, unknown>

interface FoundChunk {
  readonly id: number
  readonly stored: number
  readonly plain: number
  /** Neither distrusted nor in a lost pack. */
  readonly isSound: boolean
}
const noChunk: FoundChunk = { id: 0, stored: 0, plain: 0, isSound: false }

/**
 * The index's tables in SQLite, synchronous: runs on the index's own thread, each call inside a transaction that the thread
 * opens. Opening takes the database for this process alone, hence every lease that it finds is of a process that died.
 */
export class ChunkTables {
  readonly #db: DatabaseSync
  readonly #statements = new Map<string, StatementSync>()
  #nextChunk: number
  readonly #lostPacks = new Set<number>()

  /** @param path a file, or `:memory:`. @throws ServiceError `unavailable` while another process has it, `unsupported` */
  constructor(path: string) {
    this.#db = new DatabaseSync(path)
    try {
      this.#db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL')
      this.#db.exec(`PRAGMA cache_size = -${CACHE_KIB}; PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 16777216`)
      this.#db.exec('BEGIN IMMEDIATE')
      const version = Number(this.#one('PRAGMA user_version')?.user_version)
      if (version > migrations.length)
        throw new ServiceError(
          'unsupported',
          'The index was made by a later version of Imprint: use that, or delete the index file.',
          { version },
        )
      for (const migration of migrations.slice(version)) this.#db.exec(migration)
      this.#db.exec(`PRAGMA user_version = ${migrations.length}`)
      this.#run('UPDATE manifests SET state = ? WHERE state = ?', DROPPED, LEASED)
      this.#nextChunk = Number(this.#one('SELECT coalesce(max(id), 0) + 1 AS next FROM chunks')?.next)
      for (const { id } of this.#all('SELECT id FROM packs WHERE state = ?', LOST)) this.#lostPacks.add(Number(id))
      this.#db.exec('COMMIT')
    } catch (error) {
      this.#db.close()
      throw error
    }
  }

  /** Runs `work` as one transaction. @param durable whether it must survive a power cut when this returns */
  transaction<T>(durable: boolean, work: () => T): T {
    this.#db.exec(`PRAGMA synchronous = ${durable ? 'FULL' : 'NORMAL'}`)
    this.#db.exec('BEGIN IMMEDIATE')
    try {
      const answer = work()
      this.#db.exec('COMMIT')
      return answer
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK')
      throw error
    }
  }

  /** Runs `work` so that nothing of it stays if it throws, inside a transaction that goes on. */
  attempt<T>(work: () => T): T {
    this.#db.exec('SAVEPOINT attempt')
    try {
      const answer = work()
      this.#db.exec('RELEASE attempt')
      return answer
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK TO attempt; RELEASE attempt')
      throw error
    }
  }

  begin(owner: string): number {
    return this.#insertHold(owner, LEASED, null)
  }

  beginSession(session: string, owner: string): number {
    return this.#insertHold(owner, SESSION, session)
  }

  findSession(session: string): { hold: number; owner: string } | undefined {
    const row = this.#one(
      'UPDATE manifests SET touched_at = ? WHERE session = ? AND state = ? RETURNING id, owner',
      Date.now(),
      session,
      SESSION,
    )
    return row && { hold: Number(row.id), owner: String(row.owner) }
  }

  claim(hold: number, digests: Uint8Array): Uint32Array {
    this.#assertHold(hold)
    const found = new Uint32Array(countOf(digests))
    let keptBytes = 0
    for (let index = 0; index < found.length; index += 1) {
      const chunk = this.#findChunk(digestAt(digests, index))
      if (!chunk) continue
      if (chunk.isSound) found[index] = chunk.plain
      keptBytes += this.#ref(chunk.id, hold) * chunk.stored
    }
    this.#addStored(hold, keptBytes)
    return found
  }

  claimOwned(hold: number, digests: Uint8Array): Uint32Array {
    const owner = this.#assertHold(hold)
    const holds = this.#all(
      `SELECT id FROM manifests WHERE owner = ? AND (state = ${COMMITTED} OR state = ${LEASED} AND digest IS NOT NULL)
       ORDER BY id DESC LIMIT ${OWNED_MANIFESTS}`,
      owner,
    ).map(({ id }) => Number(id))
    holds.unshift(hold)
    const found = new Uint32Array(countOf(digests))
    let keptBytes = 0
    for (let index = 0; index < found.length; index += 1) {
      const chunk = this.#findChunk(digestAt(digests, index)) ?? noChunk // the same work for nothing
      if (!holds.some((id) => this.#one('SELECT 1 FROM refs WHERE chunk = ? AND manifest = ?', chunk.id, id))) continue
      if (!chunk.isSound) continue
      found[index] = chunk.plain
      keptBytes += this.#ref(chunk.id, hold) * chunk.stored
    }
    this.#addStored(hold, keptBytes)
    return found
  }

  registerPack(pack: string): void {
    this.#run('INSERT INTO packs(name, state) VALUES(?, ?) ON CONFLICT(name) DO NOTHING', pack, WRITING)
  }

  addPack(pack: string, packBytes: number, chunks: ChunkColumns, refs: RefColumns, movedFrom: readonly string[]): Uint8Array {
    this.registerPack(pack)
    const packId = this.#packId(pack)
    const givesUp = new Set([...movedFrom.map((name) => this.#packId(name)), ...this.#lostPacks])
    this.#lostPacks.delete(packId)
    const changed = new Set([packId, ...givesUp])
    const elsewhere: Uint8Array[] = []
    const ids = new Float64Array(countOf(chunks.digests))
    for (let index = 0; index < ids.length; index += 1) {
      const { id, from, stays } = this.#enter(packId, chunks, index, givesUp)
      ids[index] = id
      changed.add(from)
      if (stays) elsewhere.push(digestAt(chunks.digests, index))
    }
    const keptBytes = new Map<number, number>()
    for (const [at, chunk] of refs.chunks.entries()) {
      const hold = refs.holds[at]!
      if (this.#ownerOfOpen(hold) === undefined) continue // committed or given up meanwhile
      const bytes = this.#ref(ids[chunk]!, hold) * chunks.storedBytes[chunk]!
      keptBytes.set(hold, (keptBytes.get(hold) ?? 0) + bytes)
    }
    for (const [hold, bytes] of keptBytes) this.#addStored(hold, bytes)
    this.#run('UPDATE packs SET state = ?, bytes = ? WHERE id = ?', SEALED, packBytes, packId)
    for (const id of changed) this.#recount(id)
    return joinDigests(elsewhere)
  }

  forgetPack(pack: string): void {
    this.#run('DELETE FROM packs WHERE name = ? AND state = ?', pack, WRITING)
  }

  complete(hold: number, { digest, fileBytes, allocatedBytes }: CompletedManifest, session?: number): void {
    this.#assertHold(hold)
    if (session !== undefined) {
      this.#assertHold(session)
      this.#run('UPDATE manifests SET state = ?, session = NULL WHERE id = ?', DROPPED, session)
    }
    this.#run(
      'UPDATE manifests SET digest = ?, file_bytes = ?, allocated_bytes = ?, touched_at = ? WHERE id = ?',
      digest,
      fileBytes,
      allocatedBytes,
      Date.now(),
      hold,
    )
  }

  commit(hold: number): void {
    this.#run('UPDATE manifests SET state = ? WHERE id = ? AND state = ?', COMMITTED, hold, LEASED)
  }

  abandon(hold: number): void {
    this.#run('UPDATE manifests SET state = ?, session = NULL WHERE id = ? AND state <> ?', DROPPED, hold, COMMITTED)
  }

  drop(digest: Uint8Array, owner?: string): void {
    if (owner === undefined)
      this.#run('UPDATE manifests SET state = ? WHERE digest = ? AND state = ?', DROPPED, digest, COMMITTED)
    else
      this.#run(
        `UPDATE manifests SET state = ${DROPPED} WHERE id =
         (SELECT id FROM manifests WHERE digest = ? AND owner = ? AND state = ${COMMITTED} ORDER BY id LIMIT 1)`,
        digest,
        owner,
      )
  }

  locate(digests: Uint8Array): Locations {
    const count = countOf(digests)
    const packs: string[] = []
    const places = new Map<number, number>()
    const found = {
      packs,
      pack: new Int32Array(count).fill(-1),
      offsets: new Uint32Array(count),
      storedBytes: new Uint32Array(count),
      plainBytes: new Uint32Array(count),
      codecs: new Uint8Array(count),
    }
    for (let index = 0; index < count; index += 1) {
      const row = this.#one('SELECT pack, offset, stored, plain, codec FROM chunks WHERE digest = ?', digestAt(digests, index))
      if (!row) continue
      const packId = Number(row.pack)
      let place = places.get(packId)
      if (place === undefined) {
        place = packs.push(String(this.#one('SELECT name FROM packs WHERE id = ?', packId)?.name)) - 1
        places.set(packId, place)
      }
      found.pack[index] = place
      found.offsets[index] = Number(row.offset)
      found.storedBytes[index] = Number(row.stored)
      found.plainBytes[index] = Number(row.plain)
      found.codecs[index] = Number(row.codec)
    }
    return found
  }

  findManifest(digest: Uint8Array): { hold: number; storedBytes: number } | undefined {
    const row = this.#one(
      `SELECT id, stored_bytes FROM manifests WHERE digest = ? AND state IN (${LEASED}, ${COMMITTED}) ORDER BY id LIMIT 1`,
      digest,
    )
    return row && { hold: Number(row.id), storedBytes: Number(row.stored_bytes) }
  }

  exclusiveBytes(
    hold: number,
    digest: Uint8Array,
    after: number,
    limit: number,
    owner: string | null,
  ): { bytes: number; last: number } {
    const row = this.#one(
      `SELECT coalesce(sum(stored * alone), 0) AS bytes, max(chunk) AS last, count(*) AS n FROM (
         SELECT mine.chunk, chunks.stored, NOT EXISTS (
           SELECT 1 FROM refs AS other CROSS JOIN manifests AS m ON m.id = other.manifest
           WHERE other.chunk = mine.chunk AND m.state IN (${LEASED}, ${COMMITTED}) AND m.digest <> ?2
             AND (?5 IS NULL OR m.owner = ?5)
         ) AS alone
         FROM refs AS mine CROSS JOIN chunks ON chunks.id = mine.chunk
         WHERE mine.manifest = ?1 AND mine.chunk > ?3 ORDER BY mine.chunk LIMIT ?4)`,
      hold,
      digest,
      after,
      limit,
      owner,
    )
    return { bytes: Number(row?.bytes), last: Number(row?.n) < limit ? 0 : Number(row?.last) }
  }

  totals(): IndexTotals {
    const sums = this.#one(
      `SELECT count(*) AS packs, coalesce(sum(live_chunks), 0) AS chunks, coalesce(sum(live_bytes), 0) AS stored,
       coalesce(sum(live_plain), 0) AS plain FROM packs WHERE state <> ${WRITING}`,
    )
    const manifests = this.#one(`SELECT count(DISTINCT digest) AS n FROM manifests WHERE state IN (${LEASED}, ${COMMITTED})`)
    return {
      chunks: Number(sums?.chunks),
      packs: Number(sums?.packs),
      manifests: Number(manifests?.n),
      storedBytes: Number(sums?.stored),
      plainBytes: Number(sums?.plain),
    }
  }

  candidates(sessionsUntouchedSince: number): { lastChunk: number; manifests: ManifestRow[] } {
    const rows = this.#all(
      `SELECT id, digest, state FROM manifests
       WHERE state IN (${COMMITTED}, ${DROPPED}) OR state = ${SESSION} AND touched_at < ? ORDER BY id`,
      sessionsUntouchedSince,
    )
    return {
      lastChunk: this.#nextChunk - 1,
      manifests: rows.map(({ id, digest, state }) => ({
        hold: Number(id),
        digest: digest instanceof Uint8Array ? digest : null,
        committed: state === COMMITTED,
      })),
    }
  }

  chunkIds(digests: Uint8Array): Float64Array {
    const ids = new Float64Array(countOf(digests))
    for (let index = 0; index < ids.length; index += 1)
      ids[index] = Number(this.#one('SELECT id FROM chunks WHERE digest = ?', digestAt(digests, index))?.id ?? 0)
    return ids
  }

  restoreManifests(holds: readonly number[]): void {
    for (const hold of holds)
      this.#run('UPDATE manifests SET state = ? WHERE id = ? AND state = ? AND digest IS NOT NULL', COMMITTED, hold, DROPPED)
  }

  removeManifests(holds: readonly number[], sessionsUntouchedSince: number): boolean {
    let left = REFS_A_CALL
    for (const hold of holds) {
      this.#run(
        `UPDATE manifests SET state = ${DROPPED}, session = NULL
         WHERE id = ? AND (state = ${COMMITTED} OR state = ${SESSION} AND touched_at < ?)`,
        hold,
        sessionsUntouchedSince,
      )
      if (!this.#one('SELECT 1 FROM manifests WHERE id = ? AND state = ?', hold, DROPPED)) continue // gone, or in use again
      if (left <= 0) return true
      left -= this.#run(
        'DELETE FROM refs WHERE manifest = ?1 AND chunk IN (SELECT chunk FROM refs WHERE manifest = ?1 ORDER BY chunk LIMIT ?2)',
        hold,
        left,
      )
      if (left <= 0) return true
      this.#run('DELETE FROM manifests WHERE id = ?', hold)
    }
    return false
  }

  unreferenced(after: number, last: number, limit: number): Float64Array {
    return Float64Array.from(
      this.#all(
        `SELECT id FROM chunks WHERE id > ? AND id <= ? AND NOT EXISTS (SELECT 1 FROM refs WHERE chunk = chunks.id)
         ORDER BY id LIMIT ?`,
        after,
        last,
        limit,
      ),
      ({ id }) => Number(id),
    )
  }

  removeChunks(ids: Float64Array): { chunks: number; bytes: number } {
    let [chunks, bytes] = [0, 0]
    for (const id of ids) {
      const row = this.#one(
        'DELETE FROM chunks WHERE id = ? AND NOT EXISTS (SELECT 1 FROM refs WHERE chunk = chunks.id) RETURNING pack, stored, plain',
        id,
      )
      if (!row) continue
      this.#run(
        'UPDATE packs SET live_chunks = live_chunks - 1, live_bytes = live_bytes - ?, live_plain = live_plain - ? WHERE id = ?',
        Number(row.stored),
        Number(row.plain),
        Number(row.pack),
      )
      chunks += 1
      bytes += Number(row.stored)
    }
    return { chunks, bytes }
  }

  packs(): PackRow[] {
    return this.#all('SELECT name, state, bytes, live_chunks, live_bytes, suspect FROM packs ORDER BY id').map((row) => ({
      pack: String(row.name),
      state: packStates[Number(row.state)]!,
      packBytes: Number(row.bytes),
      liveChunks: Number(row.live_chunks),
      liveBytes: Number(row.live_bytes),
      isSuspect: row.suspect === 1,
    }))
  }

  chunksOfPack(pack: string): ChunkColumns {
    const rows = this.#all(
      'SELECT digest, offset, stored, plain, kind, codec FROM chunks WHERE pack = (SELECT id FROM packs WHERE name = ?) ORDER BY offset',
      pack,
    )
    const digests = new Uint8Array(rows.length * DIGEST_BYTES)
    for (const [index, row] of rows.entries()) digests.set(row.digest as Uint8Array, index * DIGEST_BYTES)
    return {
      digests,
      offsets: Uint32Array.from(rows, (row) => Number(row.offset)),
      storedBytes: Uint32Array.from(rows, (row) => Number(row.stored)),
      plainBytes: Uint32Array.from(rows, (row) => Number(row.plain)),
      kinds: Uint8Array.from(rows, (row) => Number(row.kind)),
      codecs: Uint8Array.from(rows, (row) => Number(row.codec)),
    }
  }

  removePack(pack: string): boolean {
    const row = this.#one(`DELETE FROM packs WHERE name = ? AND live_chunks = 0 AND state <> ${WRITING} RETURNING id`, pack)
    if (row) this.#lostPacks.delete(Number(row.id))
    return row !== undefined
  }

  losePack(pack: string): void {
    this.#run('UPDATE packs SET state = ? WHERE name = ?', LOST, pack)
    this.#lostPacks.add(this.#packId(pack))
  }

  distrust(pack: string, digests: Uint8Array): void {
    if (this.#setDistrusted(pack, digests, 1) > 0) this.#run('UPDATE packs SET suspect = 1 WHERE name = ?', pack)
  }

  trust(pack: string, digests: Uint8Array): void {
    this.#setDistrusted(pack, digests, 0)
  }

  distrusted(pack: string): Uint8Array {
    const rows = this.#all('SELECT digest FROM chunks WHERE distrusted = 1 AND pack = ? ORDER BY offset', this.#packId(pack))
    return joinDigests(rows.map(({ digest }) => digest as Uint8Array))
  }

  manifestsUsing(digests: Uint8Array): Uint8Array[] {
    const found = new Map<number, Uint8Array>()
    for (let index = 0; index < countOf(digests); index += 1) {
      const rows = this.#all(
        `SELECT m.id, m.digest FROM chunks CROSS JOIN refs ON refs.chunk = chunks.id CROSS JOIN manifests AS m ON m.id = refs.manifest
         WHERE chunks.digest = ? AND m.state IN (${LEASED}, ${COMMITTED}) AND m.digest IS NOT NULL`,
        digestAt(digests, index),
      )
      for (const { id, digest } of rows) found.set(Number(id), digest as Uint8Array)
    }
    return [...found.values()]
  }

  clear(): void {
    this.#db.exec(`DELETE FROM refs; DELETE FROM chunks; DELETE FROM packs; DELETE FROM manifests WHERE state <> ${SESSION};
      UPDATE manifests SET stored_bytes = 0`)
    this.#lostPacks.clear()
  }

  close(): void {
    this.#statements.clear()
    this.#db.close()
  }

  #insertHold(owner: string, state: number, session: string | null): number {
    const row = this.#one(
      'INSERT INTO manifests(owner, state, session, touched_at) VALUES(?, ?, ?, ?) RETURNING id',
      owner,
      state,
      session,
      Date.now(),
    )
    return Number(row?.id)
  }

  /**
   * @returns its owner
   * @throws ServiceError `conflict` where it is complete, so that what comes after a commit is kept by nothing, or given up
   */
  #assertHold(hold: number): string {
    const owner = this.#ownerOfOpen(hold)
    if (owner === undefined)
      throw new ServiceError('conflict', 'This upload was committed or given up: begin a new one.', { hold })
    return owner
  }

  #ownerOfOpen(hold: number): string | undefined {
    const row = this.#one('SELECT owner FROM manifests WHERE id = ? AND state <> ? AND digest IS NULL', hold, DROPPED)
    return row && String(row.owner)
  }

  #findChunk(digest: Uint8Array): FoundChunk | undefined {
    const row = this.#one('SELECT id, stored, plain, pack, distrusted FROM chunks WHERE digest = ?', digest)
    if (!row) return undefined
    return {
      id: Number(row.id),
      stored: Number(row.stored),
      plain: Number(row.plain),
      isSound: row.distrusted === 0 && !this.#lostPacks.has(Number(row.pack)),
    }
  }

  /** @returns how many of the chunks the pack has */
  #setDistrusted(pack: string, digests: Uint8Array, distrusted: 0 | 1): number {
    const packId = this.#packId(pack)
    let chunks = 0
    for (let index = 0; index < countOf(digests); index += 1)
      chunks += this.#run(
        'UPDATE chunks SET distrusted = ? WHERE digest = ? AND pack = ?',
        distrusted,
        digestAt(digests, index),
        packId,
      )
    return chunks
  }

  /** @returns 1 where the ref is new */
  #ref(chunk: number, hold: number): number {
    return this.#run('INSERT INTO refs(chunk, manifest) VALUES(?, ?) ON CONFLICT DO NOTHING', chunk, hold)
  }

  #addStored(hold: number, bytes: number): void {
    this.#run('UPDATE manifests SET stored_bytes = stored_bytes + ?, touched_at = ? WHERE id = ?', bytes, Date.now(), hold)
  }

  /** @returns the chunk's id, the pack where it was until now, and whether it stays there although that is another one */
  #enter(
    packId: number,
    chunks: ChunkColumns,
    index: number,
    givesUp: ReadonlySet<number>,
  ): { id: number; from: number; stays: boolean } {
    const digest = digestAt(chunks.digests, index)
    const stored = chunks.storedBytes[index]!
    const facts = [packId, chunks.offsets[index]!, stored, chunks.plainBytes[index]!, chunks.kinds[index]!, chunks.codecs[index]!]
    const existing = this.#one('SELECT id, pack, stored, distrusted FROM chunks WHERE digest = ?', digest)
    if (!existing) {
      const id = this.#nextChunk
      this.#nextChunk += 1
      this.#run(
        'INSERT INTO chunks(id, digest, pack, offset, stored, plain, kind, codec) VALUES(?, ?, ?, ?, ?, ?, ?, ?)',
        id,
        digest,
        ...facts,
      )
      return { id, from: packId, stays: false }
    }
    const id = Number(existing.id)
    const from = Number(existing.pack)
    const isNewCopy = from !== packId && existing.distrusted === 1
    if (!isNewCopy && !givesUp.has(from)) return { id, from, stays: from !== packId }
    this.#run(
      `UPDATE chunks SET distrusted = CASE WHEN pack = ?1 THEN distrusted ELSE 0 END,
         pack = ?1, offset = ?2, stored = ?3, plain = ?4, kind = ?5, codec = ?6 WHERE id = ?7`,
      ...facts,
      id,
    )
    const grown = stored - Number(existing.stored)
    if (grown !== 0)
      this.#run(
        'UPDATE manifests SET stored_bytes = stored_bytes + ? WHERE id IN (SELECT manifest FROM refs WHERE chunk = ?)',
        grown,
        id,
      )
    return { id, from, stays: false }
  }

  #recount(packId: number): void {
    this.#run(
      `UPDATE packs SET (live_chunks, live_bytes, live_plain) =
       (SELECT count(*), coalesce(sum(stored), 0), coalesce(sum(plain), 0) FROM chunks WHERE pack = packs.id) WHERE id = ?`,
      packId,
    )
  }

  #packId(pack: string): number {
    return Number(this.#one('SELECT id FROM packs WHERE name = ?', pack)?.id ?? -1)
  }

  #prepare(sql: string): StatementSync {
    const known = this.#statements.get(sql)
    if (known) return known
    const statement = this.#db.prepare(sql)
    this.#statements.set(sql, statement)
    return statement
  }

  #one(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#prepare(sql).get(...values)
  }

  #all(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#prepare(sql).all(...values)
  }

  #run(sql: string, ...values: SQLInputValue[]): number {
    return Number(this.#prepare(sql).run(...values).changes)
  }
}
