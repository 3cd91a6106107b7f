import { randomInt } from 'node:crypto'
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { ServiceError } from '../../../../base/errors.ts'
import { countOf, DIGEST_BYTES, digestAt, joinDigests } from '../../../content/digests.ts'
import type { ChunkColumns, CompletedManifest, IndexTotals, Locations, ManifestRow, PackRow, RefColumns } from '../chunk-index.ts'
import { migrations } from './migrations.ts'

const CACHE_KIB = 8 * 1024
/** Refs that one call may remove: bounds how long the calls behind it wait, to some milliseconds. */
const REFS_A_CALL = 4096

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

/** ?1 is an array of digests and ?2 their number, not 0: `place(i)` has a row for each, and its digest is `AT_PLACE`. */
const PLACES = 'WITH RECURSIVE place(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM place WHERE i + 1 < ?2)'
const AT_PLACE = `substr(?1, i * ${DIGEST_BYTES} + 1, ${DIGEST_BYTES})`

type Row = Record<string, unknown>

interface FoundChunk {
  /** In the array of digests. */
  readonly place: number
  readonly id: number
  readonly stored: number
  readonly plain: number
  /** Neither distrusted nor in a lost pack. */
  readonly isSound: boolean
}

/** A disk that fails in the middle of a transaction ends it: what came before is undone, and nothing more may go into it. */
export class TransactionUndone extends Error {}

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

  /** Runs `work` so that nothing of it stays if it throws, inside a transaction that goes on. @throws `TransactionUndone` */
  attempt<T>(work: () => T): T {
    this.#db.exec('SAVEPOINT attempt')
    try {
      const answer = work()
      this.#db.exec('RELEASE attempt')
      return answer
    } catch (error) {
      if (!this.#db.isTransaction) throw new TransactionUndone('SQLite has undone the whole transaction', { cause: error })
      this.#db.exec('ROLLBACK TO attempt; RELEASE attempt')
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
      `UPDATE manifests SET touched_at = ? WHERE session = ? AND state = ?
       RETURNING id, (SELECT name FROM owners WHERE owners.id = owner_id) AS owner`,
      Date.now(),
      session,
      SESSION,
    )
    return row && { hold: Number(row.id), owner: String(row.owner) }
  }

  claim(hold: number, digests: Uint8Array): Uint32Array {
    const owner = this.#assertHold(hold)
    const found = this.#found(
      digests,
      `${PLACES} SELECT i, id, stored, plain, pack, distrusted FROM place CROSS JOIN chunks ON digest = ${AT_PLACE}`,
    )
    return this.#keep(hold, owner, digests, found)
  }

  claimOwned(hold: number, digests: Uint8Array): Uint32Array {
    const owner = this.#assertHold(hold)
    // for a chunk that is nowhere, refs of nobody to some other chunk are looked for; facts are read of owned chunks only
    const found = this.#found(
      digests,
      `${PLACES},
       known(i, chunk) AS MATERIALIZED (SELECT i, (SELECT id FROM chunks WHERE digest = ${AT_PLACE}) FROM place),
       asked(i, chunk, owner) AS MATERIALIZED (
         SELECT i, coalesce(chunk, 1 + (?5 + i * 7919) % ?6), CASE WHEN chunk IS NULL THEN -1 ELSE ?3 END FROM known),
       owned(i, chunk) AS MATERIALIZED (SELECT i, chunk FROM asked WHERE EXISTS (
         SELECT 1 FROM refs CROSS JOIN manifests AS m ON m.id = refs.manifest
         WHERE refs.chunk = asked.chunk AND refs.owner = asked.owner
           AND (m.id = ?4 OR m.state = ${COMMITTED} OR m.state = ${LEASED} AND m.digest IS NOT NULL)))
       SELECT i, id, stored, plain, pack, distrusted FROM owned CROSS JOIN chunks ON chunks.id = owned.chunk`,
      owner,
      hold,
      randomInt(this.#nextChunk),
      this.#nextChunk,
    )
    return this.#keep(
      hold,
      owner,
      digests,
      found.filter(({ isSound }) => isSound),
    )
  }

  registerPack(pack: string): void {
    this.#run('INSERT INTO packs(name, state) VALUES(?, ?) ON CONFLICT(name) DO NOTHING', pack, WRITING)
  }

  addPack(pack: string, packBytes: number, chunks: ChunkColumns, refs: RefColumns, movedFrom: readonly string[]): Uint8Array {
    this.registerPack(pack)
    const packId = this.#packId(pack)
    const givesUp = new Set([...movedFrom.map((name) => this.#packId(name)), ...this.#lostPacks])
    this.#lostPacks.delete(packId)
    const changed = new Set([packId])
    const elsewhere: Uint8Array[] = []
    const existing = this.#byPlace(
      chunks.digests,
      `${PLACES} SELECT i, id, pack, stored, distrusted FROM place CROSS JOIN chunks ON digest = ${AT_PLACE}`,
    )
    const ids = new Float64Array(countOf(chunks.digests))
    for (let index = 0; index < ids.length; index += 1) {
      const row = existing.get(index)
      if (row === undefined) {
        ids[index] = this.#insertChunk(packId, chunks, index)
        continue
      }
      const [id, from, stored, distrusted] = row as [number, number, number, number]
      ids[index] = id
      const isNewCopy = from !== packId && distrusted === 1
      if (isNewCopy || givesUp.has(from)) {
        this.#moveChunk(id, stored, packId, chunks, index)
        changed.add(from)
      } else if (from !== packId) elsewhere.push(digestAt(chunks.digests, index))
    }
    this.#addPackRefs(ids, chunks, refs)
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
         (SELECT id FROM manifests WHERE digest = ? AND owner_id = ? AND state = ${COMMITTED} ORDER BY id LIMIT 1)`,
        digest,
        this.#ownerId(owner),
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
    const rows = this.#byPlace(
      digests,
      `${PLACES} SELECT i, pack, offset, stored, plain, codec FROM place CROSS JOIN chunks ON digest = ${AT_PLACE}`,
    )
    for (const [index, row] of rows) {
      const [packId, offset, stored, plain, codec] = row as [number, number, number, number, number]
      let place = places.get(packId)
      if (place === undefined) {
        place = packs.push(String(this.#one('SELECT name FROM packs WHERE id = ?', packId)?.name)) - 1
        places.set(packId, place)
      }
      found.pack[index] = place
      found.offsets[index] = offset
      found.storedBytes[index] = stored
      found.plainBytes[index] = plain
      found.codecs[index] = codec
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
             AND (?5 IS NULL OR m.owner_id = ?5)
         ) AS alone
         FROM refs AS mine CROSS JOIN chunks ON chunks.id = mine.chunk
         WHERE mine.manifest = ?1 AND mine.chunk > ?3 ORDER BY mine.chunk LIMIT ?4)`,
      hold,
      digest,
      after,
      limit,
      owner === null ? null : this.#ownerId(owner),
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
      `SELECT manifests.id, digest, state, owners.name AS owner FROM manifests CROSS JOIN owners ON owners.id = owner_id
       WHERE state IN (${COMMITTED}, ${DROPPED}) OR state = ${SESSION} AND touched_at < ? ORDER BY manifests.id`,
      sessionsUntouchedSince,
    )
    return {
      lastChunk: this.#nextChunk - 1,
      manifests: rows.map(({ id, digest, state, owner }) => ({
        hold: Number(id),
        owner: String(owner),
        digest: digest instanceof Uint8Array ? digest : null,
        committed: state === COMMITTED,
      })),
    }
  }

  chunkIds(digests: Uint8Array): Float64Array {
    const ids = new Float64Array(countOf(digests))
    const rows = this.#byPlace(digests, `${PLACES} SELECT i, id FROM place CROSS JOIN chunks ON digest = ${AT_PLACE}`)
    for (const [index, [id]] of rows) ids[index] = Number(id)
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
    this.#run('INSERT INTO owners(name) VALUES(?) ON CONFLICT DO NOTHING', owner)
    const row = this.#one(
      'INSERT INTO manifests(owner_id, state, session, touched_at) VALUES(?, ?, ?, ?) RETURNING id',
      this.#ownerId(owner),
      state,
      session,
      Date.now(),
    )
    return Number(row?.id)
  }

  /** @returns −1 for an owner that has never had anything */
  #ownerId(name: string): number {
    return Number(this.#one('SELECT id FROM owners WHERE name = ?', name)?.id ?? -1)
  }

  /**
   * @returns id of its owner
   * @throws ServiceError `conflict` where it is complete, so that what comes after a commit is kept by nothing, or given up
   */
  #assertHold(hold: number): number {
    const owner = this.#ownerOfOpen(hold)
    if (owner === undefined)
      throw new ServiceError('conflict', 'This upload was committed or given up: begin a new one.', { hold })
    return owner
  }

  #ownerOfOpen(hold: number): number | undefined {
    const row = this.#one('SELECT owner_id FROM manifests WHERE id = ? AND state <> ? AND digest IS NULL', hold, DROPPED)
    return row && Number(row.owner_id)
  }

  /** @param sql of rows `i, id, stored, plain, pack, distrusted`, from `PLACES` */
  #found(digests: Uint8Array, sql: string, ...more: SQLInputValue[]): FoundChunk[] {
    return Array.from(this.#byPlace(digests, sql, ...more), ([place, row]) => {
      const [id, stored, plain, pack, distrusted] = row as [number, number, number, number, number]
      return { place, id, stored, plain, isSound: distrusted === 0 && !this.#lostPacks.has(pack) }
    })
  }

  /** @returns plain bytes of the sound ones, at their places */
  #keep(hold: number, owner: number, digests: Uint8Array, found: readonly FoundChunk[]): Uint32Array {
    const plainBytes = new Uint32Array(countOf(digests))
    const storedBytes = new Map<number, number>()
    for (const { place, id, stored, plain, isSound } of found) {
      if (isSound) plainBytes[place] = plain
      storedBytes.set(id, stored)
    }
    this.#addRefs(owner, hold, storedBytes)
    return plainBytes
  }

  /** @param ids of the pack's chunks */
  #addPackRefs(ids: Float64Array, chunks: ChunkColumns, refs: RefColumns): void {
    const ofHolds = new Map<number, Map<number, number>>()
    for (const [at, chunk] of refs.chunks.entries()) {
      const hold = refs.holds[at]!
      const storedBytes = ofHolds.get(hold) ?? new Map<number, number>()
      ofHolds.set(hold, storedBytes.set(ids[chunk]!, chunks.storedBytes[chunk]!))
    }
    for (const [hold, storedBytes] of ofHolds) {
      const owner = this.#ownerOfOpen(hold)
      if (owner !== undefined) this.#addRefs(owner, hold, storedBytes) // otherwise committed or given up meanwhile
    }
  }

  /** @param storedBytes chunk id → its stored bytes, which count where the ref is new */
  #addRefs(owner: number, hold: number, storedBytes: ReadonlyMap<number, number>): void {
    let bytes = 0
    if (storedBytes.size > 0) {
      const fresh = this.#all(
        `INSERT INTO refs(chunk, owner, manifest) SELECT value, ?2, ?3 FROM json_each(?1) WHERE true
         ON CONFLICT DO NOTHING RETURNING chunk`,
        JSON.stringify([...storedBytes.keys()]),
        owner,
        hold,
      )
      for (const { chunk } of fresh) bytes += storedBytes.get(Number(chunk)) ?? 0
    }
    this.#run('UPDATE manifests SET stored_bytes = stored_bytes + ?, touched_at = ? WHERE id = ?', bytes, Date.now(), hold)
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

  /** @returns the chunk's id; a pack may list a chunk twice, as when it was moved and came again at once */
  #insertChunk(packId: number, chunks: ChunkColumns, index: number): number {
    const id = this.#nextChunk
    const digest = digestAt(chunks.digests, index)
    const inserted = this.#run(
      `INSERT INTO chunks(pack, offset, stored, plain, kind, codec, id, digest) VALUES(?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT(digest) DO NOTHING`,
      ...factsOf(packId, chunks, index),
      id,
      digest,
    )
    if (inserted === 0) return Number(this.#one('SELECT id FROM chunks WHERE digest = ?', digest)?.id)
    this.#nextChunk += 1
    return id
  }

  /** Has all that use the chunk find it in this pack. What is distrusted stays so in the same pack. */
  #moveChunk(id: number, storedBefore: number, packId: number, chunks: ChunkColumns, index: number): void {
    this.#run(
      `UPDATE chunks SET distrusted = CASE WHEN pack = ?1 THEN distrusted ELSE 0 END,
         pack = ?1, offset = ?2, stored = ?3, plain = ?4, kind = ?5, codec = ?6 WHERE id = ?7`,
      ...factsOf(packId, chunks, index),
      id,
    )
    const grown = chunks.storedBytes[index]! - storedBefore
    if (grown === 0) return
    this.#run(
      'UPDATE manifests SET stored_bytes = stored_bytes + ? WHERE id IN (SELECT manifest FROM refs WHERE chunk = ?)',
      grown,
      id,
    )
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

  /** Rows of a question that begins with `PLACES`, by their place: the columns after it. */
  #byPlace(digests: Uint8Array, sql: string, ...more: SQLInputValue[]): Map<number, readonly unknown[]> {
    const count = countOf(digests)
    if (count === 0) return new Map()
    const statement = this.#prepare(sql)
    statement.setReturnArrays(true) // a third of the cost of rows with names
    const rows = statement.all(digests, count, ...more) as unknown as [number, ...unknown[]][]
    return new Map(rows.map(([place, ...columns]) => [place, columns]))
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

const factsOf = (packId: number, chunks: ChunkColumns, index: number) => [
  packId,
  chunks.offsets[index]!,
  chunks.storedBytes[index]!,
  chunks.plainBytes[index]!,
  chunks.kinds[index]!,
  chunks.codecs[index]!,
]
