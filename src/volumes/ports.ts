import type { Caller } from '../base/caller.ts'
import type { TaskLines } from '../base/task-lines.ts'
import type { Catalog, DocumentReader } from '../store/catalog/catalog.ts'
import type { Turns } from './turns.ts'

/** What the use cases of volumes stand on. `openVolumes` (service.ts) makes it from the adapters. */
export interface VolumePorts {
  readonly catalog: Catalog
  readonly contents: VolumeContents
  readonly images: VolumeImages
  readonly limits: Limits
  readonly disk: HostDisk
  /** By volume: what reads or changes its layers. */
  readonly tasks: TaskLines
  /** By volume: who seals its disk notes the layer before the next one seals it. */
  readonly seals: Turns
  readonly settings: VolumeSettings
  /** Told of what happens behind the requests and concerns an administrator. */
  readonly onProblem: (error: unknown) => void
  /** Milliseconds since 1970. */
  readonly now: () => number
}

export interface VolumeSettings {
  /** Name of this machine: `os-vol-host-attr:host`. */
  readonly hostName: string
  /** For projects that have no limit of their own; −1: without limit. */
  readonly defaultLimits: Readonly<Record<QuotaName, number>>
  /** Bytes of the file system that are promised to nobody. */
  readonly reservedBytes: number
  /** How many times what is left of it may be promised. */
  readonly promiseRatio: number
}

/** Cinder's names. Gigabytes are GiB, as in Cinder; those of snapshots count. */
export const quotaNames = ['volumes', 'snapshots', 'gigabytes', 'per_volume_gigabytes'] as const
export type QuotaName = (typeof quotaNames)[number]

export interface Limits {
  /** The project's limit, or the one registered for everybody. −1: without limit; undefined: nobody set one. */
  of(projectId: string, name: string): Promise<number | undefined>
}

/** The file system on which volumes are written. */
export interface HostDisk {
  /** What is free, and what volumes and machines have taken of what was promised to them. */
  room(): Promise<{ readonly freeBytes: number; readonly takenBytes: number }>
  /** Bytes that are promised to others than volumes: asked inside `catalog.write`. */
  promised(documents: DocumentReader): Promise<number>
}

/**
 * The bytes of volumes; `src/images` answers it. What is written to a disk lies in layers over a base that is stored for good. A disk is
 * there until it is released, over restarts of the service, whatever becomes of what it was made from.
 */
export interface VolumeContents {
  /**
   * Makes a disk that may be written. With an id that is there already it does nothing: who was killed asks again.
   * @param id of the volume
   * @throws ServiceError `not-found`, `denied`, `conflict`, `unsupported` for an image that the caller may not start machines from;
   *   `too-large`, `no-space`
   */
  make(caller: Caller, id: string, bytes: number, from: ContentsSource): Promise<void>
  /** Zeros follow. Settles when nobody has it open any more: an address that was given before is good no more. @throws ServiceError `not-found` */
  grow(id: string, bytes: number): Promise<void>
  /** Where it is to be had over NBD from now on; the address before is good no more. @throws ServiceError `not-found` */
  address(id: string): Promise<DiskAddress>
  /** Settles when somebody has it open. */
  whenOpen(id: string): Promise<void>
  /**
   * From one moment on writes go to a new layer.
   * @returns what the layer below is known by: greater than those before
   * @throws ServiceError `unavailable` where too many are sealed already; `no-space`
   */
  seal(id: string): Promise<number>
  /**
   * Stores what the disk was when that layer was sealed, as the base on which it lies from now on, and makes another disk on the same
   * base: what is kept. Layers are settled in their order. With a disk to keep that is there already it does nothing.
   * @param owner the project whose bytes these are
   * @throws ServiceError `no-space`, `corrupt`, `cancelled`
   */
  settle(id: string, layer: number, owner: string, keep: Kept, signal: AbortSignal): Promise<void>
  /** Notes what the disk is to become by `revert`, which is held from now on. @throws ServiceError `not-found` */
  prepareRevert(id: string, to: RevertSource): Promise<void>
  /** It is to become nothing else. */
  cancelRevert(id: string): Promise<void>
  /**
   * The disk is what was prepared, and what was written to it is gone. Settles when nobody has it open any more; an address that was given
   * before is good no more. Where nothing is prepared, it does nothing. What was sealed must be settled before.
   * @throws ServiceError `not-found`; `no-space`, `unavailable`
   */
  revert(id: string): Promise<void>
  /** Ends it. Releasing twice succeeds. */
  release(id: string): Promise<void>
  /** What is there, of volumes or of what is kept beside them. */
  held(kind: DiskKind): AsyncIterable<string>
}

export type DiskKind = 'volume' | 'volume-snapshot' | 'volume-upload'
export type ContentsSource =
  | { readonly kind: 'blank' }
  /** `part`: of what the image holds beside its disk; absent: its disk. */
  | { readonly kind: 'image'; readonly imageId: string; readonly part?: string | undefined }
  /** A disk that was kept by `settle`. */
  | { readonly kind: 'kept'; readonly id: string }
/** A disk that was kept by `settle`, or, of what `src/images` lent to others, a part or the disk itself. */
export interface RevertSource {
  /** Of the lease. */
  readonly id: string
  /** Null: the disk. */
  readonly part: string | null
}
/** A volume's may be written, the others are only read. */
export interface Kept {
  readonly id: string
  readonly kind: DiskKind
  readonly bytes: number
}

/** An NBD export. Its name is a secret. */
export interface DiskAddress {
  readonly socketPath: string
  readonly exportName: string
}

/** Images as volumes are made from them, and they from volumes; `src/images` answers it. */
export interface VolumeImages {
  /**
   * The image, if the caller may make volumes from it.
   * @throws ServiceError `not-found`, `denied`; `conflict` where it is not active; `unsupported` for a format whose disk cannot be served
   */
  show(caller: Caller, imageId: string): Promise<SourceImage>
  /** Of a further disk of the image, `diskBytes` are its. @throws ServiceError as `show`; `unsupported` for what is no disk */
  showPart(caller: Caller, imageId: string, part: string): Promise<SourceImage>
  /**
   * An image that is `queued`, of a raw disk, in the caller's project: what can be refused is refused here.
   * @throws ServiceError `denied`, `over-quota`, `too-large`, `invalid-request`
   */
  begin(caller: Caller, draft: ImageDraft): Promise<void>
  /**
   * `queued` → `active`. Cut short, this may be asked for again; asked for again when it is done, it changes nothing.
   * @throws ServiceError `not-found` where the image was deleted meanwhile; `no-space`, `over-quota`, `corrupt`, `cancelled`
   */
  save(imageId: string, contents: ImageContents, options: { readonly signal: AbortSignal }): Promise<void>
  /** It will not come: nothing of it is left. One that is active stays; giving up twice succeeds. */
  giveUp(imageId: string): Promise<void>
}
export interface ImageDraft {
  /** A UUID. */
  readonly id: string
  readonly name: string
  readonly bytes: number
  /** GB and MB. */
  readonly minDisk: number
  readonly minRam: number
  readonly properties: Readonly<Record<string, string>>
}
export interface ImageContents {
  /** What `settle` kept, as it is. */
  readonly disk: { readonly bytes: number; readonly leaseId: string; readonly layers: readonly [] }
  readonly properties: Readonly<Record<string, string>>
}
export interface SourceImage {
  readonly id: string
  readonly name: string | null
  /** Bytes of the disk in it. */
  readonly diskBytes: number
  /** GB and MB, as Glance has them. */
  readonly minDisk: number
  readonly minRam: number
  readonly properties: Readonly<Record<string, string>>
}
