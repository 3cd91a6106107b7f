import type { Caller } from '../base/caller.ts'
import type { TaskLines } from '../base/task-lines.ts'
import type { BlockSource } from '../disk/block/block-source.ts'
import type { Catalog, DocumentReader } from '../store/catalog/catalog.ts'
import type { SerialConsoles } from './console/serial-consoles.ts'
import type { DiskAddress, PortForward } from './hypervisor/hypervisor.ts'
import type { Machines, NamedHost } from './hypervisor/machine-host.ts'
import type { JobProgress } from './job-progress.ts'
import type { MadeVolume } from './volumes/attachment.ts'

export type { MachineHost, Machines, NamedHost } from './hypervisor/machine-host.ts'

/** What the use cases of instances stand on. `openInstances` (service.ts) makes it from the adapters. */
export interface InstancePorts {
  readonly catalog: Catalog
  /** All machines, each on its host. */
  readonly hypervisor: Machines
  /** The hosts, the service's own first. */
  readonly hosts: readonly [NamedHost, ...NamedHost[]]
  /** Names of those that were away when something was asked of them: they are looked at when they are back. */
  readonly missedHosts: Set<string>
  readonly images: ImageDisks & ImageParts
  readonly snapshots: SnapshotImages
  readonly volumes: InstanceVolumes
  readonly limits: Limits
  readonly hostPorts: HostPorts
  readonly disk: HostDisk
  readonly tasks: TaskLines<Pool>
  readonly consoles: SerialConsoles
  readonly progress: JobProgress
  readonly settings: InstanceSettings
  /** Told of what happens behind the requests and concerns an administrator. */
  readonly onProblem: (error: unknown) => void
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** `launches` take seconds, `jobs` may take hours: so neither waits for the other. */
export type Pool = 'launches' | 'jobs'

export interface InstanceSettings {
  /** For projects that have no limit of their own; −1: without limit. */
  readonly defaultLimits: Readonly<Record<QuotaName, number>>
  /** Address of this machine on which ports of guests are reached. */
  readonly forwardAddress: string
  /** The ports of this machine that guests may be reached by, both included. */
  readonly forwardPorts: { readonly first: number; readonly last: number }
  /** Guests reach nobody by themselves. Of machines that are there already, it is as it was when they were made. */
  readonly isolateGuests: boolean
  /** Of this host, in which guests are; null: each has a network of its own. Those that are there already stay where they were made. */
  readonly bridge: string | null
  /** How long a guest may take to shut itself down, as Nova's `shutdown_timeout`. */
  readonly stopGraceMs: number
  /** How long a snapshot may keep a guest's file systems from writing. */
  readonly freezeMs: number
}

/** Nova's names; ram in MiB. */
export const quotaNames = ['instances', 'cores', 'ram'] as const
export type QuotaName = (typeof quotaNames)[number]

export interface Limits {
  /** The project's limit, or the one registered for everybody. −1: without limit; undefined: nobody set one. */
  of(projectId: string, name: string): Promise<number | undefined>
}

/** The file system on which the machines' files are, with whatever else grows there. */
export interface HostDisk {
  space(): Promise<{ readonly totalBytes: number; readonly freeBytes: number }>
  /** Bytes of it that may be promised in all, as it is now. */
  promisable(): Promise<number>
  /** Bytes of it that are promised to whomever: asked inside `catalog.write`. */
  promised(documents: DocumentReader): Promise<number>
}

export interface HostPorts {
  /** Whether nothing on this machine listens there now. */
  isFree(place: Pick<PortForward, 'protocol' | 'hostAddress' | 'hostPort'>): Promise<boolean>
}

/** Images as machines start from them; `src/images` answers it. */
export interface ImageDisks {
  /**
   * The image, if the caller may start machines from it.
   * @throws ServiceError `not-found`, `denied`; `conflict` where it is not active; `unsupported` for a format whose disk cannot be
   *   served
   */
  show(caller: Caller, imageId: string): Promise<BootImage>
  /**
   * Makes the image's disk readable until `release`, also when the image is deleted meanwhile, and over restarts of the service.
   * @param holder what needs it: `instance <id>`. Who was killed before it could note the lease's id finds it again by this
   * @param options.withParts whether what it holds beside its disk is lent as well
   * @throws ServiceError as `show`; `unsupported` for a format whose disk cannot be served
   */
  lend(caller: Caller, imageId: string, holder: string, options?: { readonly withParts?: boolean }): Promise<LentDisk>
  /** A new address of what is lent; the one before is good no more. @throws ServiceError `not-found` */
  readdress(leaseId: string): Promise<DiskAddress>
  /** Ends it. Releasing twice succeeds. */
  release(leaseId: string): Promise<void>
  /** Every lease whose holder's first word is `holderKind`. */
  held(holderKind: string): AsyncIterable<HeldLease>
}

/** What images hold beside the disk that they are; `src/images` answers it. Only the service makes parts, so they may be trusted. */
export interface ImageParts {
  /** Ascending by name; nothing until the image is active. @throws ServiceError `not-found`, `denied` */
  parts(caller: Caller, imageId: string): Promise<readonly ImagePart[]>
  /** Front to back, verified; the image may be deleted meanwhile. @throws ServiceError `not-found`, `denied`, `corrupt` */
  readPart(caller: Caller, imageId: string, partName: string): AsyncIterable<Uint8Array>
  /** What was lent beside the disk. @throws ServiceError `not-found` */
  lentParts(leaseId: string): Promise<readonly ImagePart[]>
  /** As `readPart`, of what was lent. @throws ServiceError `not-found`, `corrupt` */
  readLentPart(leaseId: string, partName: string): AsyncIterable<Uint8Array>
}

export interface ImagePart {
  readonly name: string
  /** `disk`: raw; `memory`: what a hypervisor resumes from; `machine`: JSON. */
  readonly kind: NewPart['kind']
  readonly bytes: number
}

/** Volumes as instances have them; `src/volumes` answers it. Each step may be taken again, by who was killed between two. */
export interface InstanceVolumes {
  /** What it would be, if the caller may give it to an instance now. @throws as `reserve` */
  check(caller: Caller, volumeId: string): Promise<AttachedVolume>
  /**
   * From now on it is this instance's, and nobody else takes it.
   * @throws ServiceError `not-found`, `denied`; `conflict` where it is not available; `unsupported` where it may only be read
   */
  reserve(caller: Caller, volumeId: string, instanceId: string): Promise<AttachedVolume>
  /** @throws ServiceError `not-found` where it is not this instance's */
  show(volumeId: string, instanceId: string): Promise<AttachedVolume>
  isHeldBy(volumeId: string, instanceId: string): Promise<boolean>
  /** Where it is to be had from now on; the address before is good no more. @throws ServiceError `not-found` */
  address(volumeId: string, instanceId: string): Promise<DiskAddress>
  /** Settles when a machine that runs has it open, as it has not until it has found a service that started anew. @throws ServiceError `cancelled` */
  whenOpen(volumeId: string, signal: AbortSignal): Promise<void>
  /** The machine has it. */
  attached(volumeId: string, instanceId: string, device: string): Promise<void>
  /** The machine is giving it back. */
  detaching(volumeId: string, instanceId: string): Promise<void>
  /** It is nobody's again. Of what the instance has not, nothing changes. */
  released(volumeId: string, instanceId: string): Promise<void>
  /** One that was released goes. Of one that is gone, nothing is left to do. */
  delete(volumeId: string): Promise<void>
  /** What a volume that is made of it would be, if the caller may make one. @throws ServiceError `not-found`, `denied`, `conflict` */
  checkSnapshot(caller: Caller, snapshotId: string): Promise<AttachedVolume & { readonly volumeId: string }>
  /** Whether snapshots of them could be taken now. @throws ServiceError as `snapshot` */
  checkSnapshots(caller: Caller, volumeIds: readonly string[]): Promise<void>
  /** Whether volumes of the caller could be made of such snapshots, while these are there. @throws ServiceError `not-found`, `denied`; `over-quota`, `no-space` */
  checkCopies(caller: Caller, volumeIds: readonly string[]): Promise<void>
  /**
   * Of all of them at one moment, while nobody writes to any, or of none; they are stored behind it.
   * @throws ServiceError `not-found`, `denied`, `conflict`; `over-quota`; `no-space`, `unavailable`
   */
  snapshot(caller: Caller, wanted: readonly NewVolumeSnapshot[]): Promise<void>
  /** Settles when they are stored. @throws ServiceError `conflict`, saying what became of one that is not; `cancelled` */
  stored(wanted: readonly Pick<NewVolumeSnapshot, 'id' | 'volumeId'>[], signal: AbortSignal): Promise<void>
  /** Whatever has become of it. Of one that is gone, nothing is left to do. */
  deleteSnapshot(snapshotId: string): Promise<void>
  /**
   * Notes, and holds, what the volume is to be when no machine has it: what it was when the snapshot was taken, or what is in an image.
   * @throws ServiceError `not-found`, `denied`, `conflict`; `invalid-request` for a snapshot of another volume
   */
  prepareRevert(caller: Caller, volumeId: string, instanceId: string, to: RevertTo): Promise<void>
  /** It is to be nothing else. */
  cancelRevert(volumeId: string): Promise<void>
  /** It is what was noted; where nothing is, it stays. @throws ServiceError `not-found`, `no-space`, `unavailable` */
  revert(volumeId: string, instanceId: string): Promise<void>
  /** Makes it, unless it is there. @throws ServiceError for what it cannot be made from; `over-quota`, `no-space` */
  create(caller: Caller, volumeId: string, made: MadeVolume): Promise<void>
  /** All that instances are said to have. */
  held(): Promise<readonly { readonly volumeId: string; readonly instanceId: string }[]>
}
export interface NewVolumeSnapshot {
  /** Of the snapshot, chosen by who asks: a UUID. */
  readonly id: string
  readonly volumeId: string
  readonly name: string
}
export type RevertTo =
  | { readonly kind: 'snapshot'; readonly snapshotId: string }
  /** Of an image that is lent with its parts: one of them, or, null, its disk. */
  | { readonly kind: 'lent'; readonly leaseId: string; readonly part: string | null }
export interface AttachedVolume {
  readonly id: string
  readonly bytes: number
  readonly isBootable: boolean
  /** Of the image that it was made from. */
  readonly imageMetadata: Readonly<Record<string, string>> | null
}

export interface BootImage {
  readonly id: string
  readonly name: string | null
  /** Bytes of the disk that the guest sees. */
  readonly diskBytes: number
  /** GB and MB, as Glance has them. */
  readonly minDisk: number
  readonly minRam: number
  readonly properties: Readonly<Record<string, string>>
}
export interface LentDisk {
  readonly leaseId: string
  readonly image: BootImage
  readonly address: DiskAddress
}
export interface HeldLease {
  readonly leaseId: string
  readonly holder: string
}

/** Images that are made of instances' disks; `src/images` answers it. */
export interface SnapshotImages {
  /**
   * An image that is `queued`, of a raw disk, in the caller's project: what can be refused is refused here. With an id of which the same
   * caller has begun one already, it answers as before.
   * @throws ServiceError `denied`, `over-quota`, `invalid-request`, `conflict`
   */
  begin(caller: Caller, draft: SnapshotDraft): Promise<void>
  /**
   * What belongs to the image beside its disk, before the disk is saved. Durable when it settles, and seen when the image is active. One of
   * the same name takes the place of the one before.
   * @throws ServiceError `not-found` where the image was deleted meanwhile; `no-space`, `over-quota`, `cancelled`; what `body` throws
   */
  addPart(imageId: string, part: NewPart, options?: SaveOptions): Promise<void>
  /**
   * `queued` → `saving` → `active`. Reads no more than the changes, and of what lies under them only what must be put together with
   * them. md5 and sha512 follow behind. Cut short, this may be asked for again, also by the next run of the service; asked for again when
   * it is done, it changes nothing.
   * @throws ServiceError `not-found` where the image was deleted meanwhile; `no-space`, `over-quota`, `corrupt`, `cancelled`
   */
  save(imageId: string, contents: SnapshotContents, options?: SaveOptions): Promise<void>
  /** It will not come: nothing of it is left. One that is active stays; giving up twice succeeds. */
  giveUp(imageId: string): Promise<void>
  /**
   * Deletes the oldest of the project's active images that have these properties, until so many are left. Protected ones stay, and count.
   * @returns how many it deleted
   */
  rotate(projectId: string, properties: Readonly<Record<string, string>>, keep: number): Promise<number>
  /** Deletes one that was made here, whatever has become of it. One that is gone is as good as deleted. */
  remove(imageId: string): Promise<void>
}

export interface SnapshotDraft {
  /** Chosen by who asks, so that it can be noted before anything is begun: a UUID. */
  readonly id: string
  readonly name: string
  /** Of its disk and all parts: for the quota. */
  readonly bytes: number
  /** GB and MB. */
  readonly minDisk: number
  readonly minRam: number
  readonly properties: Readonly<Record<string, string>>
}
export interface SnapshotContents {
  readonly disk: ChangedDisk
  /** Added to those of the draft: what is known only now. */
  readonly properties: Readonly<Record<string, string>>
}
/** A disk by what differs from what it lies on. */
export interface ChangedDisk {
  readonly bytes: number
  /** The lease of the disk under it, which may be smaller: zeros follow; null: zeros. */
  readonly leaseId: string | null
  /** From the lowest to the highest, each as large as the disk: a `hole` is as below. The caller closes them. */
  readonly layers: readonly BlockSource[]
}
/** Names are letters, digits and `-`, at most 40. */
export type NewPart =
  | { readonly kind: 'disk'; readonly name: string; readonly disk: ChangedDisk }
  | { readonly kind: 'memory'; readonly name: string; readonly body: AsyncIterable<Uint8Array> }
  /** What is needed to make the same machine again: JSON. */
  | { readonly kind: 'machine'; readonly name: string; readonly text: string }

export interface SaveOptions {
  readonly signal?: AbortSignal
  readonly onProgress?: (bytes: number) => void
}
