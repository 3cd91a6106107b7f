/**
 * Digest → where the chunk rests, and who uses it. A cache of what packs and manifests say (docs/store-format.md), and the
 * place where leases live. Many digests travel as one array, 32 bytes each.
 *
 * A *hold* is a row that keeps chunks: an upload session, an ingest that is under way (leased), or a manifest. Its refs are
 * inserted in the same transaction that looks the chunk up, and a chunk with a ref is never removed: that is the whole lease.
 * Leases end with the process that took them; sessions and committed manifests do not.
 */
export interface ChunkIndex {
  /** A lease for bytes that are about to come. */
  begin(owner: string): Promise<number>
  /** Durable; `findSession` knows it after a restart. */
  beginSession(session: string, owner: string): Promise<number>
  findSession(session: string): Promise<{ readonly hold: number; readonly owner: string } | undefined>

  /**
   * Looks chunks up, and makes `hold` keep those that are found; also those that are distrusted, as they may come again.
   * @returns plain bytes of each chunk; 0: not in the store, distrusted, or its pack is lost
   * @throws ServiceError `conflict` where the hold is gone or complete
   */
  claim(hold: number, digests: Uint8Array): Promise<Uint32Array>
  /** The same, but finds only what manifests of the hold's owner use and what the hold keeps. Takes as long for other chunks. */
  claimOwned(hold: number, digests: Uint8Array): Promise<Uint32Array>

  /** Before the pack is written, so that a collector leaves it alone. */
  registerPack(pack: string): Promise<void>
  /**
   * The pack is durable: enters its chunks with their refs, in one durable transaction. A chunk that another pack has stays
   * there, unless that pack is lost or in `movedFrom`, or its copy is distrusted: then all that use the chunk find the new one. Holds
   * that ended meanwhile get no refs.
   * @returns digests of the chunks that stayed in other packs
   */
  addPack(
    pack: string,
    packBytes: number,
    chunks: ChunkColumns,
    refs: RefColumns,
    movedFrom: readonly string[],
  ): Promise<Uint8Array>
  /** The pack could not be written. */
  forgetPack(pack: string): Promise<void>

  /**
   * The hold has all its chunks: it is this manifest, still leased. Durable.
   * @param session the hold of an upload by chunks that ends with it: what was sent for nothing goes with the next collection
   */
  complete(hold: number, manifest: CompletedManifest, session?: number): Promise<void>
  /** A record names the manifest: what was leased is committed. */
  commit(hold: number): Promise<void>
  /** Nobody needs what the hold keeps: it goes with the next collection. Does nothing to what was committed. */
  abandon(hold: number): Promise<void>
  /**
   * A record of `owner` names this manifest no more: one of the owner's rows goes with the next collection; where there is none,
   * the collection finds out by itself. The same bytes of other records keep theirs.
   * @param owner absent: no record at all names it
   */
  drop(digest: Uint8Array, owner?: string): Promise<void>

  locate(digests: Uint8Array): Promise<Locations>
  /** The manifest's row that is in use, if there is one. */
  findManifest(digest: Uint8Array): Promise<{ readonly hold: number; readonly storedBytes: number } | undefined>
  /**
   * Of the chunks that `hold` keeps, at most `limit` beyond chunk `after`: bytes that no other manifest uses.
   * @param digest rows of this manifest do not count as others
   * @param owner only this project's manifests count; null: everybody's
   * @returns `last`: go on after this chunk; 0: that was all
   */
  exclusiveBytes(
    hold: number,
    digest: Uint8Array,
    after: number,
    limit: number,
    owner: string | null,
  ): Promise<{ bytes: number; last: number }>
  totals(): Promise<IndexTotals>

  /** For the collector: rows that may go when no record names them, and the youngest chunk there is now. */
  candidates(sessionsUntouchedSince: number): Promise<{ readonly lastChunk: number; readonly manifests: readonly ManifestRow[] }>
  /** Ids of chunks; 0: not in the index. Ids are never used twice while the index is open. */
  chunkIds(digests: Uint8Array): Promise<Float64Array>
  /** A record names it after all. */
  restoreManifests(holds: readonly number[]): Promise<void>
  /** Removes rows with their refs, some thousands of refs a call. @returns whether something is left to remove */
  removeManifests(holds: readonly number[], sessionsUntouchedSince: number): Promise<boolean>
  /** Chunks beyond `after`, not beyond `last`, that have no ref: ascending ids, at most `limit`. */
  unreferenced(after: number, last: number, limit: number): Promise<Float64Array>
  /** Removes those that have no ref at this moment. */
  removeChunks(ids: Float64Array): Promise<{ readonly chunks: number; readonly bytes: number }>

  packs(): Promise<readonly PackRow[]>
  chunksOfPack(pack: string): Promise<ChunkColumns>
  /** Forgets a sealed pack that has no chunk any more. Durable. @returns whether it did, so that its blob may go */
  removePack(pack: string): Promise<boolean>
  /** The blob is not there: until its chunks come again they count as lacking. */
  losePack(pack: string): Promise<void>
  /**
   * What the pack holds of these chunks is damaged: whoever brings one is told that it is lacking, until a pack with a new copy
   * is added. Nothing changes for chunks that are elsewhere by now. Durable.
   */
  distrust(pack: string, digests: Uint8Array): Promise<void>
  /** What the pack holds of these chunks was read and is right: takes back what `distrust` said of it. */
  trust(pack: string, digests: Uint8Array): Promise<void>
  /** Digests of the chunks of the pack that are distrusted. */
  distrusted(pack: string): Promise<Uint8Array>
  /** Digests of manifests in use that keep any of these chunks. */
  manifestsUsing(digests: Uint8Array): Promise<readonly Uint8Array[]>
  /** Forgets everything but sessions' names: packs, chunks, manifests, refs. */
  clear(): Promise<void>
  close(): Promise<void>
}

/** Facts of n chunks, a column each. */
export interface ChunkColumns {
  readonly digests: Uint8Array
  readonly offsets: Uint32Array
  readonly storedBytes: Uint32Array
  readonly plainBytes: Uint32Array
  readonly kinds: Uint8Array
  readonly codecs: Uint8Array
}

/** Which hold keeps which chunk of a pack, a pair for each place in the two arrays. */
export interface RefColumns {
  /** Place of the chunk in the columns. */
  readonly chunks: Uint32Array
  readonly holds: Float64Array
}

export interface Locations {
  /** Names of packs, referred to by `pack`. */
  readonly packs: readonly string[]
  /** −1: not in the store. */
  readonly pack: Int32Array
  readonly offsets: Uint32Array
  readonly storedBytes: Uint32Array
  readonly plainBytes: Uint32Array
  readonly codecs: Uint8Array
}

export interface CompletedManifest {
  readonly digest: Uint8Array
  readonly fileBytes: number
  readonly allocatedBytes: number
}

export interface ManifestRow {
  readonly hold: number
  readonly owner: string
  /** Absent where an ingest never came to its end. */
  readonly digest: Uint8Array | null
  readonly committed: boolean
}

export interface PackRow {
  readonly pack: string
  readonly state: 'writing' | 'sealed' | 'lost'
  readonly packBytes: number
  readonly liveChunks: number
  /** Stored bytes of the chunks that the index finds in this pack, distrusted ones included. */
  readonly liveBytes: number
  /** Something in it was distrusted once: the next collection moves what is whole out of it. */
  readonly isSuspect: boolean
}

export interface IndexTotals {
  readonly chunks: number
  readonly packs: number
  readonly manifests: number
  readonly storedBytes: number
  readonly plainBytes: number
}
