import type { ImageRecord, SortKey } from './catalog.ts'

/** The tables, as the query builder sees them; docs/catalog.md tells what each column is for. */
export interface CatalogTables {
  readonly images: ImagesTable
  readonly image_terms: ImageTermsTable
  readonly image_members: ImageMembersTable
  readonly project_usage: ProjectUsageTable
  readonly documents: DocumentsTable
  readonly document_indexes: DocumentIndexesTable
  readonly outbox: OutboxTable
}

/** `record` is the truth; every other column is computed from it, for the indexes. */
export interface ImagesTable {
  readonly seq: number | undefined
  readonly id: string
  readonly version: number
  readonly shelf: number
  readonly audience: string | null
  readonly name: string | null
  readonly status: string
  readonly visibility: string
  readonly owner: string | null
  readonly protected: number
  readonly hidden: number
  readonly disk_format: string | null
  readonly container_format: string | null
  readonly min_disk: number
  readonly min_ram: number
  readonly size: number | null
  readonly virtual_size: number | null
  readonly checksum: string | null
  readonly hash_algo: string | null
  readonly hash_value: string | null
  readonly created_at: number
  readonly updated_at: number
  readonly manifest: string | null
  readonly staged_manifest: string | null
  /** JSON of the `ImageRecord`. */
  readonly record: string
}
export interface ImageTermsTable {
  readonly term: Uint8Array
  readonly shelf: number
  readonly created_at: number
  readonly id: string
  readonly seq: number
}
export interface ImageMembersTable {
  readonly image_id: string
  readonly member_id: string
  readonly status: string
  readonly created_at: number
  readonly updated_at: number
  /** The image's, so that "shared with me" comes newest image first out of an index. */
  readonly image_created_at: number
}
export interface ProjectUsageTable {
  readonly owner: string
  readonly image_count: number
  readonly total_bytes: number
  readonly staged_bytes: number
  readonly uploading_count: number
}
export interface DocumentsTable {
  readonly kind: string
  readonly key: string
  readonly version: number
  readonly body: string
  /** JSON of `{ indexes, unique }` as they were put. */
  readonly indexes: string
  readonly expires_at: number | null
}
export interface DocumentIndexesTable {
  readonly kind: string
  readonly name: string
  readonly value: string
  readonly key: string
  readonly is_unique: number
}
/** Changes that the journal does not yet hold. */
export interface OutboxTable {
  readonly n: number | undefined
  /** JSON lines of one transaction. */
  readonly lines: string
}

/**
 * Which lists can show an image: every query asks for one shelf, so that what is hidden or gone costs a list nothing.
 * Killed images stand with the deleted ones, since no list of living images shows them.
 */
export const shelves = { listed: 0, hidden: 1, gone: 2 } as const

export function shelfOf(image: Pick<ImageRecord, 'status' | 'hidden'>): number {
  if (image.status === 'deleted' || image.status === 'killed') return shelves.gone
  return image.hidden ? shelves.hidden : shelves.listed
}

/** Set for images that everybody may see: only these stand in the audience indexes. */
export const audienceOf = ({ visibility }: Pick<ImageRecord, 'visibility'>): string | null =>
  visibility === 'public' || visibility === 'community' ? visibility : null

/** Sort field → column, and whether the column may be NULL; NULL sorts below every value. */
export const sortColumns = {
  name: { column: 'name', nullable: true },
  status: { column: 'status', nullable: false },
  visibility: { column: 'visibility', nullable: false },
  owner: { column: 'owner', nullable: true },
  protected: { column: 'protected', nullable: false },
  hidden: { column: 'hidden', nullable: false },
  diskFormat: { column: 'disk_format', nullable: true },
  containerFormat: { column: 'container_format', nullable: true },
  minDisk: { column: 'min_disk', nullable: false },
  minRam: { column: 'min_ram', nullable: false },
  size: { column: 'size', nullable: true },
  virtualSize: { column: 'virtual_size', nullable: true },
  checksum: { column: 'checksum', nullable: true },
  hashAlgo: { column: 'hash_algo', nullable: true },
  hashValue: { column: 'hash_value', nullable: true },
  createdAt: { column: 'created_at', nullable: false },
  updatedAt: { column: 'updated_at', nullable: false },
  id: { column: 'id', nullable: false },
} as const satisfies Record<SortKey['field'], { readonly column: keyof ImagesTable; readonly nullable: boolean }>

export const sortValue = (image: ImageRecord, field: SortKey['field']): string | number | null => {
  const value = image[field]
  return typeof value === 'boolean' ? Number(value) : value
}

/** The row that stands for a record; `seq` is the database's own. */
export const imageRow = (image: ImageRecord) => ({
  id: image.id,
  version: image.version,
  shelf: shelfOf(image),
  audience: audienceOf(image),
  name: image.name,
  status: image.status,
  visibility: image.visibility,
  owner: image.owner,
  protected: Number(image.protected),
  hidden: Number(image.hidden),
  disk_format: image.diskFormat,
  container_format: image.containerFormat,
  min_disk: image.minDisk,
  min_ram: image.minRam,
  size: image.size,
  virtual_size: image.virtualSize,
  checksum: image.checksum,
  hash_algo: image.hashAlgo,
  hash_value: image.hashValue,
  created_at: image.createdAt,
  updated_at: image.updatedAt,
  manifest: image.manifest,
  staged_manifest: image.stagedManifest,
  record: JSON.stringify(image),
})
