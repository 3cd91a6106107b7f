import type { Identity } from '../../../identity/service.ts'
import type { ChunkUploads } from '../../../images/add-by-chunks.ts'
import type { ExportPorts } from '../../../images/leases/exports.ts'
import type { ImagePorts } from '../../../images/ports.ts'
import type { StoreJobs } from '../../../images/store-jobs.ts'
import type { InstancePorts } from '../../../instances/ports.ts'
import type { NbdAddresses } from './export-uris.ts'

/** What `/v1` stands on; main.ts makes it. */
export interface ImprintServices {
  readonly images: ImagePorts
  readonly uploads: ChunkUploads
  readonly jobs: StoreJobs
  readonly leases: ExportPorts
  readonly instances: InstancePorts
  readonly nbd: NbdAddresses
  readonly identity: Identity
  readonly version: string
  /** Milliseconds since 1970. */
  readonly startedAt: number
  readonly now: () => number
}
