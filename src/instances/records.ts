import type { Hardware, PortForward, PowerState } from './hypervisor/hypervisor.ts'

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
  | 'spawning'
  | 'powering-on'
  | 'powering-off'
  | 'rebooting'
  | 'rebooting_hard'
  | 'pausing'
  | 'unpausing'
  | 'deleting'

export interface InstanceRecord {
  /** Lower-case UUID; the machine's too. */
  readonly id: string
  readonly name: string
  /** What the guest is told to call itself. */
  readonly hostname: string
  readonly description: string | null
  readonly projectId: string
  readonly userId: string
  readonly imageId: string
  readonly flavor: FlavorOfInstance
  /** As it was when the instance was made. */
  readonly key: { readonly name: string; readonly publicKey: string } | null
  readonly metadata: Readonly<Record<string, string>>
  /** In the order in which they came. */
  readonly tags: readonly string[]
  readonly vmState: VmState
  readonly taskState: TaskState | null
  /** Null: there is no machine yet, or none any more. */
  readonly power: PowerState | null
  readonly lock: InstanceLock | null
  readonly fault: InstanceFault | null
  /** Of the disk that its own writes lie on. */
  readonly leaseId: string | null
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
}

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
}

/** Also of what comes out of URLs: whatever is not shaped like an id names nothing. */
export const isInstanceId = (text: string): boolean => /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/.test(text)
