import { createHash, randomBytes } from 'node:crypto'
import { ServiceError } from '../../base/errors.ts'
import type { CatalogReader, CatalogWriter, ImageRecord, StoredDocument } from '../../store/catalog/catalog.ts'
import type { StoredPart } from '../parts/image-parts.ts'

/**
 * A disk that is lent: whoever has the lease's name may read it over NBD until the lease ends, whatever becomes of the image
 * meanwhile. The record names the manifest, and the collector spares what it names (recorded-manifests.ts).
 */
export interface Lease {
  /** Null: a blank disk, which is writable. */
  readonly image: LeasedImage | null
  /** Of the disk, not of the file that holds it. */
  readonly diskBytes: number
  /** What the image held beside its disk, where that is lent as well. */
  readonly parts?: readonly LeasedPart[]
  /** What the disk is to become when its writer is gone (`VolumeDisks.revert`): it is held from now on. */
  readonly revertsTo?: LeasedImage
  /** What is in the layers up to this one is of before the disk became another: they go before it is opened again. */
  readonly dropsThrough?: number
  /** Writes go to a scratch disk that has the lease's id and goes with it. */
  readonly isWritable: boolean
  /** Of whoever borrowed it; null: a part of the service did. */
  readonly projectId: string | null
  /** What needs it: `instance <id>`, `export`. Its first word finds all leases of a kind. */
  readonly holder: string
  /** SHA-256 of the name, in hex. The name itself was told once and is kept nowhere. */
  readonly nameHash: string
  /** Milliseconds since 1970. */
  readonly createdAt: number
  /** Null: until it is released. */
  readonly expiresAt: number | null
}

/** What a lease is for, and for how long. */
export type LeaseTerms = Pick<Lease, 'isWritable' | 'projectId' | 'holder' | 'nameHash' | 'createdAt' | 'expiresAt'>

/** What an image was when it was lent: its record may be gone. */
export interface LeasedImage {
  readonly id: string
  readonly name: string | null
  /** The project that owned it. */
  readonly owner: string | null
  readonly manifest: string
  readonly diskFormat: string
}

export type LeasedPart = Pick<StoredPart, 'name' | 'kind' | 'bytes' | 'manifest'>

export type StoredLease = StoredDocument<Lease>

const LEASE_KIND = 'disk-lease'
const NAME_BYTES = 32 // as many as no one guesses, ever
const PAGE = 500

/** A name for a lease: 43 characters that need no escaping in an address. */
export function newName(): { readonly name: string; readonly nameHash: string } {
  const name = randomBytes(NAME_BYTES).toString('base64url')
  return { name, nameHash: hashOfName(name) }
}
export const hashOfName = (name: string): string => createHash('sha256').update(name).digest('hex')

export const hasExpired = ({ expiresAt }: Lease, now: number): boolean => expiresAt !== null && expiresAt <= now

/** @param expect the version that must stand there; absent: a new lease */
export function putLease({ documents }: CatalogWriter, id: string, lease: Lease, expect = 0): Promise<StoredLease> {
  const indexes = { kind: kindOf(lease.holder), ...(lease.projectId === null ? {} : { project: lease.projectId }) }
  return documents.put(LEASE_KIND, id, lease, { indexes, unique: { name: lease.nameHash }, expect })
}
const kindOf = (holder: string): string => holder.split(' ', 1)[0]!

export const deleteLease = ({ documents }: CatalogWriter, id: string): Promise<boolean> => documents.delete(LEASE_KIND, id)

export const getLease = ({ documents }: CatalogReader, id: string): Promise<StoredLease | undefined> =>
  documents.get<Lease>(LEASE_KIND, id)

/** Takes as long for every hash that is unknown. */
export async function leaseOfName({ documents }: CatalogReader, nameHash: string): Promise<StoredLease | undefined> {
  const [found] = await documents.list<Lease>(LEASE_KIND, { index: { name: 'name', value: nameHash }, limit: 1 })
  return found
}

/** Ascending by id. */
export const leasesOfProject = (
  { documents }: CatalogReader,
  projectId: string,
  page: { readonly after?: string; readonly limit: number },
): Promise<readonly StoredLease[]> => documents.list<Lease>(LEASE_KIND, { index: { name: 'project', value: projectId }, ...page })

/** @param holderKind the first word of the holder; absent: all leases */
export async function* allLeases({ documents }: CatalogReader, holderKind?: string): AsyncGenerator<StoredLease> {
  for (let after: string | undefined; ; ) {
    const page: readonly StoredLease[] = await documents.list<Lease>(LEASE_KIND, {
      ...(holderKind === undefined ? {} : { index: { name: 'kind', value: holderKind } }),
      ...(after === undefined ? {} : { after }),
      limit: PAGE,
    })
    yield* page
    after = page.at(-1)?.key
    if (after === undefined || page.length < PAGE) return
  }
}

/** What can be lent of the image as it is now. @throws ServiceError `conflict`, `unsupported` */
export function lendable(image: ImageRecord, servable: readonly string[]): Pick<Lease, 'image' | 'diskBytes'> {
  const { id, name, owner, manifest, diskFormat, containerFormat } = image
  assertActive(image)
  if (diskFormat === null || containerFormat !== 'bare' || !servable.includes(diskFormat)) {
    throw new ServiceError(
      'unsupported',
      `image ${id} is ${containerFormat}/${diskFormat}: disks are served of ${servable.join(', ')} images in a bare container; convert it, and add it as one of these`,
      { imageId: id, diskFormat, containerFormat },
    )
  }
  const diskBytes = image.virtualSize
  if (manifest === null || diskBytes === null) throw new Error(`image ${id} is active without bytes`)
  return { image: { id, name, owner, manifest, diskFormat }, diskBytes }
}

/** What can be lent of a part. @throws ServiceError `conflict`, `unsupported` */
export function lendablePart(image: ImageRecord, part: StoredPart): Pick<Lease, 'image' | 'diskBytes'> {
  assertActive(image)
  const { id, name, owner } = image
  if (part.kind !== 'disk') {
    throw new ServiceError('unsupported', `part "${part.name}" of image ${id} is no disk: it is ${part.kind}`, { imageId: id })
  }
  return { image: { id, name, owner, manifest: part.manifest, diskFormat: 'raw' }, diskBytes: part.bytes }
}

/** @throws ServiceError `conflict` */
function assertActive({ id, status }: Pick<ImageRecord, 'id' | 'status'>): void {
  if (status !== 'active') {
    throw new ServiceError('conflict', `image ${id} is ${status}: only the disk of an active image is lent`, {
      imageId: id,
      status,
    })
  }
}
