import type { Caller } from '../base/caller.ts'
import type { Catalog } from '../store/catalog/catalog.ts'
import type { DiskAddress, Hypervisor } from './hypervisor/hypervisor.ts'

/** What the use cases of instances stand on. */
export interface InstancePorts {
  readonly catalog: Catalog
  readonly hypervisor: Hypervisor
  readonly images: ImageDisks
  readonly limits: { of(projectId: string, name: string): Promise<number | undefined> }
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** Images as machines start from them; `src/images` answers it. */
export interface ImageDisks {
  /**
   * The image, if the caller may start machines from it.
   * @throws ServiceError `not-found`, `denied`; `conflict` where it is not active
   */
  show(caller: Caller, imageId: string): Promise<BootImage>
  /**
   * Makes the image's disk readable until `release`, also when the image is deleted meanwhile, and over restarts of the service.
   * @param holder what needs it: `instance <id>`
   * @throws ServiceError as `show`; `unsupported` for a format whose disk cannot be served
   */
  lend(caller: Caller, imageId: string, holder: string): Promise<LentDisk>
  /** A new address of what is lent; the one before is good no more. @throws ServiceError `not-found` */
  readdress(leaseId: string): Promise<DiskAddress>
  /** Ends it. Releasing twice succeeds. */
  release(leaseId: string): Promise<void>
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
