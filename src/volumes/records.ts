/** Cinder's words. */
export type VolumeStatus =
  | 'creating'
  | 'available'
  | 'attaching'
  | 'in-use'
  | 'detaching'
  | 'extending'
  | 'uploading'
  | 'deleting'
  | 'error'
  | 'error_deleting'
export type SnapshotStatus = 'creating' | 'available' | 'deleting' | 'error' | 'error_deleting'

export interface VolumeRecord {
  /** Lower-case UUID; that of the lease which keeps its bytes, too. */
  readonly id: string
  readonly name: string | null
  readonly description: string | null
  readonly projectId: string
  readonly userId: string
  readonly sizeGiB: number
  readonly status: VolumeStatus
  /** Why it is in error: for people. */
  readonly fault: string | null
  readonly source: VolumeSource
  readonly isBootable: boolean
  readonly isReadOnly: boolean
  readonly metadata: Metadata
  /** What was known of the image it was made from: `volume_image_metadata`. Null: it was not. */
  readonly imageMetadata: Metadata | null
  readonly attachment: VolumeAttachment | null
  /** While it is `extending`: how large it is to be. */
  readonly growingTo: number | null
  /** While it is `uploading`. */
  readonly upload: VolumeUpload | null
  readonly createdAt: number
  readonly updatedAt: number
}
export type Metadata = Readonly<Record<string, string>>

/** What a volume was made from. */
export type VolumeSource =
  | { readonly kind: 'blank' }
  | { readonly kind: 'image'; readonly imageId: string; readonly part?: string | undefined }
  | { readonly kind: 'snapshot'; readonly snapshotId: string }
  /** The layer of that volume which was sealed for it; null: not yet. */
  | { readonly kind: 'volume'; readonly volumeId: string; readonly layer: number | null }

export interface VolumeAttachment {
  readonly id: string
  readonly instanceId: string
  /** `/dev/vdb`; null until it is attached. */
  readonly device: string | null
  readonly at: number | null
}

export interface VolumeUpload {
  readonly imageId: string
  /** What it is again afterwards. */
  readonly before: 'available' | 'in-use'
  readonly layer: number | null
}

export interface SnapshotRecord {
  /** Lower-case UUID; that of the lease which keeps its bytes, too. */
  readonly id: string
  readonly volumeId: string
  readonly name: string | null
  readonly description: string | null
  readonly projectId: string
  readonly userId: string
  /** Of the volume when the snapshot was taken. */
  readonly sizeGiB: number
  readonly status: SnapshotStatus
  readonly fault: string | null
  readonly metadata: Metadata
  /** The layer of the volume that was sealed for it: what was written later is not in it. Null: not yet. */
  readonly layer: number | null
  readonly createdAt: number
  readonly updatedAt: number
}

/** Also of what comes out of URLs: whatever is not shaped like an id names nothing. */
export const isId = (text: string): boolean => /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/.test(text)
