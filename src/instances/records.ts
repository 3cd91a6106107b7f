import type { Sealed } from './hypervisor/disk-layers.ts'
import type { Hardware, PortForward, PowerState } from './hypervisor/hypervisor.ts'
import type { AttachmentRecord } from './volumes/attachment.ts'

export interface FlavorRecord {
  /** Letters, digits, `.`, `-`, `_` and spaces: administrators choose it, so that `1` is m1.tiny everywhere. */
  readonly id: string
  readonly name: string
  readonly description: string | null
  readonly vcpus: number
  readonly ramMiB: number
  /** 0: as large as the image's disk. */
  readonly diskGiB: number
  readonly ephemeralGiB: number
  readonly swapMiB: number
  readonly isPublic: boolean
  /** Projects that may use it though it is not public. Ascending, distinct. */
  readonly projects: readonly string[]
  readonly extraSpecs: Readonly<Record<string, string>>
  readonly createdAt: number
}

/** What an instance keeps of its flavor, which may be deleted meanwhile. */
export type FlavorOfInstance = Omit<FlavorRecord, 'isPublic' | 'projects' | 'createdAt'>

/** Belongs to a user, not to a project. */
export interface KeypairRecord {
  readonly userId: string
  readonly name: string
  /** One line, as it stands in `authorized_keys`. */
  readonly publicKey: string
  /** MD5 of the key, as `aa:bb:…`: Nova's form. */
  readonly fingerprint: string
  readonly createdAt: number
}

/** Nova's words. */
export type VmState = 'building' | 'active' | 'paused' | 'stopped' | 'error'
export type TaskState =
  | 'scheduling'
  /** Waits for its disk, which is being made. */
  | 'block_device_mapping'
  | 'spawning'
  | 'powering-on'
  | 'powering-off'
  | 'rebooting'
  | 'rebooting_hard'
  | 'pausing'
  | 'unpausing'
  | JobTask
  | 'deleting'
/** Tasks that are more than a change of power: a job (jobs.ts) says what they are about and how far they are. */
export type JobTask = (typeof jobTasks)[number]
export const jobTasks = ['image_snapshot', 'image_uploading', 'image_backup', 'rebuilding', 'hydrating', 'migrating'] as const
export const isJobTask = (task: TaskState | null): task is JobTask => (jobTasks as readonly (string | null)[]).includes(task)

export interface InstanceRecord {
  /** Lower-case UUID; the machine's too. */
  readonly id: string
  readonly name: string
  /** What the guest is told to call itself. */
  readonly hostname: string
  readonly description: string | null
  readonly projectId: string
  readonly userId: string
  /** '': it starts from a volume. */
  readonly imageId: string
  /** The image's own, as they were: what is made of the instance inherits them. */
  readonly imageProperties: Readonly<Record<string, string>>
  readonly flavor: FlavorOfInstance
  /** As it was when the instance was made. */
  readonly key: { readonly name: string; readonly publicKey: string } | null
  readonly metadata: Readonly<Record<string, string>>
  /** In the order in which they came. */
  readonly tags: readonly string[]
  readonly vmState: VmState
  readonly taskState: TaskState | null
  /** The name of the host that it is on, or shall be; null, or absent in records of before there were several: the service's own. */
  readonly host?: string | null
  /** Null: there is no machine yet, or none any more. */
  readonly power: PowerState | null
  readonly lock: InstanceLock | null
  readonly fault: InstanceFault | null
  /** Of the disk that its own writes lie on. */
  readonly leaseId: string | null
  /** It is being moved from that disk to another of the same content: until that is done it may lie on either. */
  readonly move: { readonly leaseId: string; readonly through: number } | null
  readonly rootBytes: number
  readonly hardware: Hardware
  /** Null: none was asked for. */
  readonly network: InstanceNetwork | null
  /** What its users note of addresses elsewhere; ''. */
  readonly accessIPv4: string
  readonly accessIPv6: string
  /** Noted only: what resizes partitions is in the guest. */
  readonly diskConfig: DiskConfig
  /** `r-…`: all that were made by one request. */
  readonly reservationId: string
  readonly launchIndex: number
  readonly createdAt: number
  readonly updatedAt: number
  /** Null: it never ran. */
  readonly launchedAt: number | null
  /** How it came to its host; absent: it was made there. */
  readonly migration?: InstanceMigration
}

export interface InstanceMigration {
  /** Names of hosts. */
  readonly from: string
  readonly to: string
  /** For how long the guest stood still; null: whoever knew was killed. */
  readonly downtimeMs: number | null
  /** Of memory and disks, from host to host; null: whoever knew was killed. */
  readonly bytes: number | null
  readonly at: number
}

/** Then it has no root disk of its own. */
export const startsFromVolume = ({ imageId }: Pick<InstanceRecord, 'imageId'>): boolean => imageId === ''

export type DiskConfig = 'AUTO' | 'MANUAL'

export interface InstanceLock {
  /** What an administrator locked its owner cannot unlock. */
  readonly by: 'owner' | 'admin'
  readonly reason: string | null
}
export interface InstanceFault {
  /** As Nova has it: a status of HTTP. */
  readonly code: number
  readonly message: string
  /** For administrators. */
  readonly details: string
  readonly at: number
}
export interface InstanceNetwork {
  readonly mac: string
  readonly forwards: readonly PortForward[]
  /** Of the host, in which it was made; absent: its network is its own. */
  readonly bridge?: string
}

/** Also of what comes out of URLs: whatever is not shaped like an id names nothing. */
export const isInstanceId = (text: string): boolean => /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/.test(text)

/** What is done to an instance beside its power, kept apart from it and as long as it lasts: the next start goes on by it. */
export type InstanceJob = SnapshotJob | RebuildJob | HydrateJob | MigrateJob

export interface HydrateJob {
  readonly kind: 'hydrate'
}

/** Both are hosts as records have them; until the instance's own says `to`, nobody may believe that it is there. */
export interface MigrateJob {
  readonly kind: 'migrate'
  readonly from: string | null
  readonly to: string | null
  /** Whether the target was told that it comes: before that nothing that is there has come by it. */
  readonly hasBegun: boolean
}

export interface SnapshotJob {
  readonly kind: 'snapshot'
  /** The image that it becomes. */
  readonly imageId: string
  readonly imageName: string
  readonly withMemory: boolean
  /** Whether the image tells what the machine was, so that the same can be made of it; with memory it always does. */
  readonly withMachine: boolean
  /** Of backups of a type so many are kept, this one among them; null: it is none. */
  readonly backup: { readonly type: string; readonly rotation: number } | null
  /** The instance that waits to start from it; the image goes then. Null: none. */
  readonly cloneId: string | null
  /** Of its volumes, of the same moment: noted before they are taken. Empty: they are not in it. */
  readonly volumes: readonly VolumeSnapshot[]
  /** What the disks were sealed to; null: not yet. */
  readonly sealed: Sealed | null
  readonly isSaved: boolean
}

/** Of a volume of an instance, and how the instance has that volume. */
export interface VolumeSnapshot
  extends Pick<AttachmentRecord, 'volumeId' | 'device' | 'bootIndex' | 'deleteOnTermination' | 'tag'> {
  /** Of the snapshot. */
  readonly id: string
  /** Of the volume. */
  readonly bytes: number
}

export interface RebuildJob {
  readonly kind: 'rebuild'
  /** What only the launch needs, in place of what there was; absent user data: as it is. */
  readonly seed: {
    readonly userData?: string | null
    readonly passwordHash: string | null
    readonly resumesFrom: ResumeSource | null
  }
  /** What the instance is from when its old machine is gone. */
  readonly becomes: Pick<InstanceRecord, 'imageId' | 'imageProperties' | 'hardware' | 'rootBytes'> &
    Partial<Pick<InstanceRecord, 'name' | 'description' | 'metadata' | 'key' | 'accessIPv4' | 'accessIPv6' | 'diskConfig'>>
  /** Whether it was off: it is turned off again. */
  readonly wasStopped: boolean
  /** Of the new disk; null: not lent yet, or it starts from a volume. */
  readonly leaseId: string | null
  /** Volumes that are put back to what they were; empty: none is. */
  readonly reverts: readonly VolumeRevert[]
  /** The image that they, or memory, are taken from, which is lent with all that it holds until the end. */
  readonly partsFrom: { readonly imageId: string; readonly leaseId: string | null } | null
  /** Whether the old machine is gone. */
  readonly isCleared: boolean
}

/** The image whose memory a machine goes on from, and the lease by which that is held; null: not lent yet. */
export interface ResumeSource {
  readonly imageId: string
  readonly leaseId: string | null
}

export interface VolumeRevert {
  readonly volumeId: string
  /** `part`: of the image that is lent; null: its disk. */
  readonly to:
    | { readonly kind: 'snapshot'; readonly snapshotId: string }
    | { readonly kind: 'part'; readonly part: string | null }
}

/** When backups of an instance are made without anybody asking. */
export interface BackupSchedule {
  readonly instanceId: string
  readonly everyHours: number
  readonly backupType: string
  /** How many of that type are kept. */
  readonly rotation: number
  /** Milliseconds since 1970. */
  readonly nextAt: number
  /** Why the last one could not be begun; null: it was. */
  readonly lastProblem: string | null
}
