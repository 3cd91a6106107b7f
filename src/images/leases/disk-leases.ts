import { randomUUID } from 'node:crypto'
import { type Caller, serviceCaller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { openableFormats } from '../../disk/formats/index.ts'
import type { CatalogWriter, ImageRecord } from '../../store/catalog/catalog.ts'
import { recordAudit } from '../audit.ts'
import { findImage } from '../find-image.ts'
import { type ImagePart, partsOf } from '../parts/image-parts.ts'
import { findPart, listParts, readPart } from '../parts/read-parts.ts'
import type { ImagePorts } from '../ports.ts'
import {
  allLeases,
  deleteLease,
  getLease,
  hasExpired,
  type Lease,
  type LeasedPart,
  type LeaseTerms,
  lendable,
  lendablePart,
  newName,
  putLease,
  type StoredLease,
} from './lease.ts'
import type { LeasedDisks } from './leased-disks.ts'

/** What leases stand on. */
export interface LeasePorts extends Pick<ImagePorts, 'catalog' | 'now'> {
  /** Most bytes of all scratch disks of a project together, as large as they are made; −1: without limit. */
  readonly scratchQuotaBytes: number
  /** Told when a name is good no more. */
  readonly disks: LeasedDisks
}

/** Of an image, what a machine that starts from it must know. */
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
/** Where a lent disk is to be had over NBD. The name is a secret. */
export interface DiskAddress {
  readonly socketPath: string
  readonly exportName: string
}

/** A disk that was lent; the address is told once. */
export interface LentDisk {
  readonly leaseId: string
  readonly image: BootImage
  readonly address: DiskAddress
}

type DiskLeasePorts = LeasePorts & Pick<ImagePorts, 'chunks' | 'readers'>

/** Disks of images for parts of the service that run machines from them: lent until they are released. */
export class DiskLeases {
  readonly #ports: DiskLeasePorts
  readonly #socketPath: string

  /** @param socketPath where the service listens for NBD */
  constructor(ports: DiskLeasePorts, socketPath: string) {
    this.#ports = ports
    this.#socketPath = socketPath
  }

  /**
   * The image, if the caller may start machines from it.
   * @throws ServiceError `not-found`, `denied`; `conflict` where it is not active; `unsupported` for a format whose disk cannot be served
   */
  async show(caller: Caller, imageId: string): Promise<BootImage> {
    const { image } = await findImage(this.#ports.catalog, caller, imageId, 'download')
    lendable(image, openableFormats)
    return bootImageOf(image)
  }

  /**
   * Makes the image's disk readable until `release`, also when the image is deleted meanwhile, and over restarts of the service.
   * @param holder what needs it: `instance <id>`
   * @param options.withParts whether what it holds beside its disk is lent as well
   * @throws ServiceError as `show`; `unsupported` for a format whose disk cannot be served
   */
  async lend(caller: Caller, imageId: string, holder: string, { withParts = false } = {}): Promise<LentDisk> {
    return this.#lend(holder, async (tx, leaseId, terms) => {
      const parts = withParts ? { parts: (await partsOf(tx, imageId)).map(leasedPart) } : {}
      return bootImageOf(await makeLease(this.#ports, tx, caller, leaseId, imageId, terms, parts))
    })
  }

  /** What was lent beside the disk. @throws ServiceError `not-found` */
  async lentParts(leaseId: string): Promise<readonly ImagePart[]> {
    return ((await this.#find(leaseId)).parts ?? []).map(({ name, kind, bytes }) => ({ name, kind, bytes }))
  }

  /** The bytes of a part that was lent, front to back, verified. @throws ServiceError `not-found`, `corrupt` */
  async *readLentPart(leaseId: string, partName: string): AsyncGenerator<Uint8Array> {
    const part = (await this.#find(leaseId)).parts?.find(({ name }) => name === partName)
    if (!part) throw new ServiceError('not-found', `lease ${leaseId.slice(0, 80)} has no part "${partName}"`)
    const letGo = this.#ports.readers.hold(part.manifest)
    try {
      yield* this.#ports.chunks.stream(part.manifest, 0, part.bytes)
    } finally {
      letGo()
    }
  }

  /** As `show`, of a further disk of the image, whose bytes are told. @throws ServiceError `not-found`, `denied`; `conflict` where it is not active; `unsupported` for a part that is no disk */
  async showPart(caller: Caller, imageId: string, partName: string): Promise<BootImage> {
    const { image, part } = await findPart(this.#ports.catalog, caller, imageId, partName)
    return { ...bootImageOf(image), diskBytes: lendablePart(image, part).diskBytes }
  }

  /** What the image holds beside its disk. @throws ServiceError `not-found`, `denied` */
  parts(caller: Caller, imageId: string): Promise<readonly ImagePart[]> {
    return listParts(this.#ports, caller, imageId)
  }

  /** The bytes of a part, front to back, verified. @throws ServiceError `not-found`, `denied`, `corrupt` */
  readPart(caller: Caller, imageId: string, partName: string): AsyncIterable<Uint8Array> {
    return readPart(this.#ports, caller, imageId, partName)
  }

  /** A new address of what is lent; the one before is good no more. @throws ServiceError `not-found` */
  async readdress(leaseId: string): Promise<DiskAddress> {
    const { catalog, disks } = this.#ports
    const { name, nameHash } = newName()
    const before = await catalog.write(async (tx) => {
      const found = await getLease(tx, leaseId)
      if (!found) throw new ServiceError('not-found', `there is no lease ${leaseId.slice(0, 80)} any more: lend the disk again`)
      await putLease(tx, leaseId, { ...found.body, nameHash }, found.version)
      return found.body
    })
    await disks.changed(before.nameHash)
    return this.#addressOf(name)
  }

  /** Ends it. Releasing twice succeeds. */
  async release(leaseId: string): Promise<void> {
    await endLease(this.#ports, serviceCaller('req-release'), leaseId)
  }

  /**
   * What is lent to holders of a kind, so that leases of those who are gone can be ended at a start.
   * @param holderKind the first word of the holder: `instance`
   */
  async *held(holderKind: string): AsyncGenerator<{ readonly leaseId: string; readonly holder: string }> {
    for await (const { key, body } of allLeases(this.#ports.catalog, holderKind)) yield { leaseId: key, holder: body.holder }
  }

  async #find(leaseId: string): Promise<Lease> {
    const found = await getLease(this.#ports.catalog, leaseId)
    if (found) return found.body
    throw new ServiceError('not-found', `there is no lease ${leaseId.slice(0, 80)} any more: lend the disk again`)
  }

  async #lend(
    holder: string,
    make: (tx: CatalogWriter, leaseId: string, terms: NewLeaseTerms) => Promise<BootImage>,
  ): Promise<LentDisk> {
    const leaseId = randomUUID()
    const { name, nameHash } = newName()
    const terms = { isWritable: false, projectId: null, holder, nameHash, seconds: null }
    const image = await this.#ports.catalog.write((tx) => make(tx, leaseId, terms))
    failpoint('lease:made')
    return { leaseId, image, address: this.#addressOf(name) }
  }

  #addressOf(exportName: string): DiskAddress {
    return { socketPath: this.#socketPath, exportName }
  }
}

/**
 * In one transaction with the look at the image: a deletion comes before, and there is nothing to lend, or after, and the lease
 * keeps the bytes.
 * @throws ServiceError `not-found`, `denied`, `conflict`, `unsupported`
 */
export async function makeLease(
  { now }: LeasePorts,
  tx: CatalogWriter,
  caller: Caller,
  leaseId: string,
  imageId: string,
  terms: NewLeaseTerms,
  more: Pick<Lease, 'parts'> = {},
): Promise<ImageRecord> {
  const { image } = await findImage(tx, caller, imageId, 'download')
  await enterLease(tx, caller, leaseId, { ...lendable(image, openableFormats), ...more, ...termsFrom(terms, now()) })
  return image
}

/** A lease of a disk of zeros, which is writable. */
export async function makeBlankLease(
  { now }: LeasePorts,
  tx: CatalogWriter,
  caller: Caller,
  leaseId: string,
  diskBytes: number,
  terms: Omit<NewLeaseTerms, 'isWritable'>,
): Promise<void> {
  await enterLease(tx, caller, leaseId, { image: null, diskBytes, ...termsFrom({ ...terms, isWritable: true }, now()) })
}

/** `seconds`: until it ends by itself; null: when it is released. */
export type NewLeaseTerms = Omit<LeaseTerms, 'createdAt' | 'expiresAt'> & { readonly seconds: number | null }

export function termsFrom({ seconds, ...terms }: NewLeaseTerms, createdAt: number): LeaseTerms {
  return { ...terms, createdAt, expiresAt: seconds === null ? null : createdAt + seconds * 1000 }
}

export async function enterLease(tx: CatalogWriter, caller: Caller, leaseId: string, lease: Lease): Promise<void> {
  await putLease(tx, leaseId, lease)
  await recordAudit(tx, caller, 'lend', auditedAs(lease), lease.createdAt, factsOf(leaseId, lease))
}

const auditedAs = ({ image, projectId }: Lease) => image ?? { id: null, owner: projectId }
const factsOf = (leaseId: string, { holder, isWritable }: Lease) => ({
  lease: leaseId,
  holder,
  ...(isWritable ? { writable: true } : {}),
})

/**
 * From its commit on, the name opens nothing; then those who have it open are cut off.
 * @param mayEnd asked of the lease as it stands in the transaction
 * @returns whether it was there
 */
export async function endLease(
  { catalog, disks, now }: LeasePorts,
  caller: Caller,
  leaseId: string,
  mayEnd: (lease: StoredLease) => boolean = () => true,
): Promise<boolean> {
  const ended = await catalog.write(async (tx) => {
    const found = await getLease(tx, leaseId)
    if (!found || !mayEnd(found)) return undefined
    await deleteLease(tx, leaseId)
    await recordAudit(tx, caller, 'release', auditedAs(found.body), now(), factsOf(leaseId, found.body))
    return found.body
  })
  if (!ended) return false
  failpoint('lease:ended')
  await disks.changed(ended.nameHash)
  if (ended.isWritable) await disks.discard(leaseId)
  return true
}

/** Ends what has expired: a name is good for nothing from that moment on, and the bytes are held until here. */
export async function endExpiredLeases(ports: LeasePorts, holderKind: string): Promise<number> {
  let ended = 0
  const isOver = ({ body }: StoredLease) => hasExpired(body, ports.now())
  for await (const lease of allLeases(ports.catalog, holderKind)) {
    if (isOver(lease) && (await endLease(ports, serviceCaller('req-expiry'), lease.key, isOver))) ended += 1
  }
  return ended
}

const leasedPart = ({ name, kind, bytes, manifest }: LeasedPart): LeasedPart => ({ name, kind, bytes, manifest })

function bootImageOf({ id, name, virtualSize, size, minDisk, minRam, properties }: ImageRecord): BootImage {
  return { id, name, diskBytes: virtualSize ?? size ?? 0, minDisk, minRam, properties }
}
