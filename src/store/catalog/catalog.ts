/**
 * The records: images with everything that can be asked of them, and small documents for all else (users, tokens, tasks,
 * metadefs …). One conformance suite (`catalog.suite.ts`) says what an adapter must do.
 *
 * Acknowledged means durable: `write` resolves when its changes survive a power cut, and when the changed records also stand
 * in the journal from which a lost database is rebuilt (ephemeral kinds excepted).
 */
export interface Catalog extends CatalogReader {
  /**
   * Runs `work` alone against the newest state: what it reads cannot change before its writes are committed. All of its writes
   * happen or none. `work` does nothing slow and nothing outside the catalog, reads through `tx`, and never calls `write`, which
   * would wait for itself. Works that wait together may share a transaction of the database; one that fails is undone alone.
   * @throws what `work` throws; ServiceError `no-space`; `unavailable` once a disk has failed
   */
  write<T>(work: (tx: CatalogWriter) => Promise<T>): Promise<T>
  close(): Promise<void>
}

export interface CatalogReader {
  readonly images: ImageReader
  readonly documents: DocumentReader
}
export interface CatalogWriter {
  readonly images: ImageReader & ImageWriter
  readonly documents: DocumentReader & DocumentWriter
}

// ---------------------------------------------------------------- images

export type ImageStatus = 'queued' | 'saving' | 'uploading' | 'importing' | 'active' | 'deactivated' | 'killed' | 'deleted'
export type Visibility = 'public' | 'private' | 'shared' | 'community'
export type MemberStatus = 'pending' | 'accepted' | 'rejected'

export interface ImageRecord {
  /** Lower-case UUID; never used twice: a deleted image leaves its record as a tombstone. */
  readonly id: string
  readonly name: string | null
  readonly status: ImageStatus
  readonly visibility: Visibility
  /** Project id; null only for images that an administrator disowned. */
  readonly owner: string | null
  readonly protected: boolean
  readonly hidden: boolean
  readonly diskFormat: string | null
  readonly containerFormat: string | null
  /** GB, as Glance has it. */
  readonly minDisk: number
  /** MB, as Glance has it. */
  readonly minRam: number
  /** Bytes of the file; null until known. */
  readonly size: number | null
  /** Bytes of the disk in it; null until known. */
  readonly virtualSize: number | null
  /** md5, lower-case hex. */
  readonly checksum: string | null
  readonly hashAlgo: string | null
  readonly hashValue: string | null
  /** Milliseconds since 1970; Glance shows whole seconds. */
  readonly createdAt: number
  readonly updatedAt: number
  readonly deletedAt: number | null
  /** Ascending, distinct. */
  readonly tags: readonly string[]
  /** Custom properties. */
  readonly properties: Readonly<Record<string, string>>
  /** The file's manifest in the chunk store; null until there are bytes. */
  readonly manifest: string | null
  /** What `stage` received and `import` has not yet taken. */
  readonly stagedManifest: string | null
  /** What the service notes for itself and its users: where the bytes came from, why an upload was refused … */
  readonly notes: Readonly<Record<string, string | number | boolean>>
  /** Grows by one with each change: for compare-and-set. */
  readonly version: number
}

export interface ImageMember {
  readonly imageId: string
  /** Project id. */
  readonly memberId: string
  readonly status: MemberStatus
  readonly createdAt: number
  readonly updatedAt: number
}

export interface ImageReader {
  /** Tombstones included (status `deleted`). */
  get(id: string): Promise<ImageRecord | undefined>
  list(query: ImageQuery): Promise<readonly ImageRecord[]>
  member(imageId: string, memberId: string): Promise<ImageMember | undefined>
  /** Ascending by creation, then member id. */
  members(imageId: string): Promise<readonly ImageMember[]>
  /** Use of a project: images that are not deleted; their bytes; how many are receiving bytes or staged. */
  usage(owner: string): Promise<ProjectUsage>
  /** Every manifest that a record names, staged ones included, once for each of its records, with the record's owner. */
  manifests(): AsyncIterable<NamedManifest>
}

export interface NamedManifest {
  readonly imageId: string
  readonly owner: string | null
  readonly manifest: string
}

export interface ImageWriter {
  /** @throws ServiceError `conflict` where the id was ever used */
  create(image: ImageRecord): Promise<void>
  /**
   * Replaces the named fields; sets version + 1 and (unless given) updatedAt.
   * @throws ServiceError `not-found`; `conflict` where the stored version is not `expect`
   */
  update(id: string, expect: number, changes: Partial<Omit<ImageRecord, 'id' | 'version'>>): Promise<ImageRecord>
  /** Adds or replaces. */
  putMember(member: ImageMember): Promise<void>
  deleteMember(imageId: string, memberId: string): Promise<boolean>
}

export interface ProjectUsage {
  /** Images that are not public. */
  readonly imageCount: number
  /** Sum of `size`, of what belongs to them besides (`notes.partBytes`), and of the reserved bytes of those under way (`notes.reservedBytes`). */
  readonly totalBytes: number
  /** Bytes staged and not yet imported, and the reserved bytes of those being staged. */
  readonly stagedBytes: number
  /** Images in saving, uploading or importing. */
  readonly uploadingCount: number
}

/** All conditions hold together. Every one is answered by an index at 100,000 images. */
export interface ImageQuery {
  /**
   * Who looks. `all`: an administrator's view, every image whoever owns it; with a `projectId` (null: in no project), and no
   * `visibility` asked for, Glance leaves out the community images of other projects, and so does this.
   */
  readonly viewer: { readonly all: true; readonly projectId?: string | null } | { readonly projectId: string | null }
  /**
   * Absent: what Glance lists by default — the viewer's own, public ones, and shared ones where the membership has
   * `memberStatus` — but not the community images of others. `community` and `all` bring those in.
   */
  readonly visibility?: Visibility | 'all'
  /** Default `accepted`. */
  readonly memberStatus?: MemberStatus | 'all'
  readonly owner?: string
  /** Default false: hidden images are listed only when asked for, and then only they. */
  readonly hidden?: boolean
  readonly protected?: boolean
  /** Default false: neither deleted nor killed ones. True: deleted ones only, hidden or not unless `hidden` is given. */
  readonly deleted?: boolean
  /** Any of these. */
  readonly ids?: readonly string[]
  readonly names?: readonly string[]
  readonly statuses?: readonly ImageStatus[]
  readonly diskFormats?: readonly string[]
  readonly containerFormats?: readonly string[]
  readonly checksum?: string
  readonly hashValue?: string
  readonly minDisk?: number
  readonly minRam?: number
  readonly sizeMin?: number
  readonly sizeMax?: number
  /** All of these. */
  readonly tags?: readonly string[]
  readonly properties?: Readonly<Record<string, string>>
  readonly times?: readonly TimeCondition[]
  /** Default: createdAt desc, id desc. The id is always the last key; it goes the way of the key before it. */
  readonly sort?: readonly SortKey[]
  /** The list goes on after this image, in this order. @throws ServiceError `invalid-request` where the viewer cannot see it */
  readonly marker?: string
  readonly limit: number
}
export interface TimeCondition {
  readonly field: 'createdAt' | 'updatedAt'
  readonly op: 'gt' | 'gte' | 'lt' | 'lte' | 'eq' | 'neq'
  /** Milliseconds; compared at whole seconds, as Glance stores them. */
  readonly value: number
}
export interface SortKey {
  readonly field:
    | 'name'
    | 'status'
    | 'visibility'
    | 'owner'
    | 'protected'
    | 'hidden'
    | 'diskFormat'
    | 'containerFormat'
    | 'minDisk'
    | 'minRam'
    | 'size'
    | 'virtualSize'
    | 'checksum'
    | 'hashAlgo'
    | 'hashValue'
    | 'createdAt'
    | 'updatedAt'
    | 'id'
  readonly direction: 'asc' | 'desc'
}

// ---------------------------------------------------------------- documents

/**
 * A small JSON body under (kind, key). `indexes` are (name → value) pairs by which it can be found again; `unique` ones may
 * stand only once within the kind.
 */
export interface StoredDocument<T = unknown> {
  readonly kind: string
  readonly key: string
  readonly version: number
  readonly body: T
}

export interface DocumentReader {
  get<T>(kind: string, key: string): Promise<StoredDocument<T> | undefined>
  /** By index value, or the whole kind; ascending by key, `after` exclusive. */
  list<T>(kind: string, query?: DocumentQuery): Promise<readonly StoredDocument<T>[]>
}
export interface DocumentQuery {
  readonly index?: { readonly name: string; readonly value: string }
  readonly prefix?: string
  readonly after?: string
  readonly limit?: number
  readonly direction?: 'asc' | 'desc'
}

export interface DocumentWriter {
  /**
   * Creates or replaces. `expect`: the version that must stand there, 0 = must not exist; absent: whatever is there.
   * @throws ServiceError `conflict` for another version, or a unique index value that another key holds
   */
  put<T>(kind: string, key: string, body: T, options?: PutOptions): Promise<StoredDocument<T>>
  /** @returns whether it was there. @throws ServiceError `conflict` for another version */
  delete(kind: string, key: string, options?: { readonly expect?: number }): Promise<boolean>
  /** Deletes every document of `kind` with this index value; returns how many. */
  deleteWhere(kind: string, index: { readonly name: string; readonly value: string }): Promise<number>
  /** Deletes documents of `kind` whose `expiresAt` (an index-free column) is in the past; returns how many. */
  deleteExpired(kind: string, now: number): Promise<number>
}
export interface PutOptions {
  readonly indexes?: Readonly<Record<string, string>>
  readonly unique?: Readonly<Record<string, string>>
  readonly expect?: number
  /** Milliseconds since 1970. */
  readonly expiresAt?: number
}

/** Kinds that are not worth a place in the journal: lost with the database, and nobody misses them. */
export const ephemeralKinds: ReadonlySet<string> = new Set(['token', 'upload-session', 'lock'])
