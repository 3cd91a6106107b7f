import { randomUUID } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import { isServiceError, ServiceError } from '../base/errors.ts'
import { MiB } from '../base/units.ts'
import type { CatalogWriter, ImageRecord } from '../store/catalog/catalog.ts'
import type { Ingested } from '../store/chunks/chunk-store.ts'
import { recordAudit } from './audit.ts'
import { findImage } from './find-image.ts'
import type { Declared, ImagePorts } from './ports.ts'
import { assertWithinQuota, type ProjectQuota, quotaOf, stageableBytes, storableBytes } from './quotas.ts'

/**
 * What `upload`, `stage` and a snapshot have in common: bytes on their way into one image. Whoever moves the record from `queued` notes
 * its own `transferId` there and holds the image by it; a record that does not have it any more belongs to somebody else.
 */
export interface Transfer {
  readonly image: ImageRecord
  readonly transferId: string
  readonly quota: ProjectQuota
  /** Most bytes that may come: the service's limit. */
  readonly maxBytes: number
  readonly kind: TransferKind
}
/** `snapshot`: the bytes are those of an instance, which the service reads by itself. */
export type TransferKind = 'upload' | 'stage' | 'snapshot'

/** What the client sends, and what it said about it. */
export interface Incoming {
  /** A piece is the sender's again when the next one is asked for. */
  readonly bytes: AsyncIterable<Uint8Array>
  /** Content-Length; null where the client did not say. */
  readonly declaredBytes: number | null
  /** The client went away, or the service stops. */
  readonly signal?: AbortSignal
}

const FIRST_RESERVATION_BYTES = 64 * MiB
const stateOf = { upload: 'saving', stage: 'uploading', snapshot: 'saving' } as const
const verbOf = { upload: 'upload', stage: 'stage', snapshot: 'upload' } as const

/**
 * Takes the image for this transfer, with room for its bytes.
 * @throws ServiceError `not-found`, `denied`, `conflict`, `invalid-request`, `too-large`, `over-quota`
 */
export async function beginTransfer(
  ports: ImagePorts,
  caller: Caller,
  id: string,
  kind: TransferKind,
  declaredBytes: number | null,
): Promise<Transfer> {
  const { maxImageBytes: maxBytes } = ports.settings
  const { image: before } = await findImage(ports.catalog, caller, id, verbOf[kind])
  if (declaredBytes !== null && declaredBytes > maxBytes) throw tooLarge(maxBytes)
  const bytes = kind === 'stage' ? 'image_stage_total' : 'image_size_total'
  const quota = await quotaOf(ports, before.owner, ['image_count_uploading', bytes])
  const transferId = randomUUID()
  return ports.catalog.write(async (tx) => {
    const { image } = await findImage(tx, caller, id, verbOf[kind])
    if (kind === 'upload') declaredOf(image)
    if (kind !== 'snapshot') assertIsNoSnapshot(image)
    const usage = image.owner === null ? undefined : await tx.images.usage(image.owner)
    const room = usage ? (kind === 'stage' ? stageableBytes(quota, usage) : storableBytes(quota, usage)) : Infinity
    const reservedBytes = declaredBytes ?? Math.min(room, FIRST_RESERVATION_BYTES)
    await assertWithinQuota(tx, image.owner, quota, { uploads: 1, ...bytesOf(kind, reservedBytes) })
    const { failure: _, ...notes } = image.notes
    const taken = await tx.images.update(image.id, image.version, {
      status: stateOf[kind],
      notes: { ...notes, transferId, ...(room === Infinity ? {} : { reservedBytes }) },
      updatedAt: ports.now(),
    })
    return { image: taken, transferId, quota, maxBytes, kind }
  })
}

/** Both formats of the image, without which nothing is known of its bytes. @throws ServiceError `invalid-request` */
export function declaredOf({ id, diskFormat, containerFormat }: ImageRecord): Declared {
  if (diskFormat === null || containerFormat === null) {
    const missing = [...(diskFormat === null ? ['disk_format'] : []), ...(containerFormat === null ? ['container_format'] : [])]
    throw new ServiceError('invalid-request', `set ${missing.join(' and ')} of image ${id} before you send its bytes`)
  }
  return { diskFormat, containerFormat }
}

/** Nobody but the service puts bytes into an image that becomes a snapshot. @throws ServiceError `conflict` */
export function assertIsNoSnapshot({ id, status, notes }: ImageRecord): void {
  if (notes.snapshot !== true || status !== 'queued') return
  throw new ServiceError('conflict', `image ${id} is being made of an instance: wait until it is active, or delete it`, {
    imageId: id,
  })
}

/** The bytes as they come, with room reserved before they are used. @throws ServiceError `over-quota`, `cancelled` */
export async function* metered(
  ports: ImagePorts,
  transfer: Transfer,
  { bytes, declaredBytes }: Incoming,
): AsyncGenerator<Uint8Array> {
  const reserved = transfer.image.notes.reservedBytes
  let reservedBytes = typeof reserved === 'number' ? reserved : Infinity
  let taken = 0
  for await (const chunk of bytes) {
    taken += chunk.length
    if (taken > reservedBytes) reservedBytes = await reserveMore(ports, transfer, taken, reservedBytes)
    yield chunk
  }
  if (declaredBytes !== null && taken !== declaredBytes) {
    throw new ServiceError('invalid-request', `the body ended after ${taken} of ${declaredBytes} bytes`, { taken, declaredBytes })
  }
}

async function reserveMore(ports: ImagePorts, transfer: Transfer, needed: number, reserved: number): Promise<number> {
  const { image, quota, kind } = transfer
  return ports.catalog.write(async (tx) => {
    const now = await heldImage(tx, transfer)
    await assertWithinQuota(tx, image.owner, quota, bytesOf(kind, needed - reserved))
    const usage = image.owner === null ? undefined : await tx.images.usage(image.owner)
    const room = usage ? (kind === 'stage' ? stageableBytes(quota, usage) : storableBytes(quota, usage)) : Infinity
    const reservedBytes = Math.max(needed, Math.min(reserved * 2, reserved + room))
    await tx.images.update(now.id, now.version, { notes: { ...now.notes, reservedBytes }, updatedAt: now.updatedAt })
    return reservedBytes
  })
}

/** The image, while this transfer holds it. @throws ServiceError `gone` */
export async function heldImage(tx: CatalogWriter, { image: { id }, transferId, kind }: Transfer): Promise<ImageRecord> {
  const image = await tx.images.get(id)
  if (image?.status === stateOf[kind] && image.notes.transferId === transferId) return image
  throw new ServiceError('gone', `image ${id} was deleted while its bytes were on their way; they are gone as well`, {
    imageId: id,
  })
}

/**
 * Records what came. Until this has happened, the lease keeps the chunks; afterwards the record does, and the lease goes: where
 * it cannot go now, that is no failure of the transfer.
 * @param wanted changes to the record; a function is given it as it stands now
 * @param alongside what is true from then on, in the same transaction
 * @throws ServiceError `gone`
 */
export async function completeTransfer(
  ports: ImagePorts,
  caller: Caller,
  transfer: Transfer,
  { lease }: Ingested,
  wanted: Partial<ImageRecord> | ((held: ImageRecord) => Partial<ImageRecord>),
  alongside?: (tx: CatalogWriter) => Promise<void>,
): Promise<ImageRecord> {
  const image = await ports.catalog.write(async (tx) => {
    const held = await heldImage(tx, transfer)
    const changes = typeof wanted === 'function' ? wanted(held) : wanted
    const { transferId: _, reservedBytes: __, ...notes } = { ...held.notes, ...changes.notes }
    const at = ports.now()
    const stored = await tx.images.update(held.id, held.version, { ...changes, notes, updatedAt: at })
    await recordAudit(tx, caller, transfer.kind, stored, at, { bytes: stored.size })
    await alongside?.(tx)
    return stored
  })
  await inTheEnd(() => lease.release())
  return image
}

/**
 * Gives the image back as `queued`, with the reason. Where somebody else has it by now, there is nothing to give back. What
 * cannot be written now (a full disk, say) is tried again behind the request, and by the next start of the service at the latest.
 */
export async function abandonTransfer(
  ports: ImagePorts,
  caller: Caller,
  transfer: Transfer,
  ingested: Ingested | undefined,
  error: unknown,
): Promise<void> {
  const undo = async (): Promise<void> => {
    if (ingested) await letGo(ports, transfer, ingested)
    await giveBack(ports, caller, transfer, failureText(error))
  }
  await inTheEnd(undo)
}

/** Now, or, where that fails, again and again behind the caller's back. */
export const inTheEnd = (work: () => Promise<void>): Promise<void> => work().catch(() => retry(work, FIRST_RETRY_MS))

const FIRST_RETRY_MS = 1000
const LAST_RETRY_MS = 15 * 60_000

/** Later and later, until it succeeds or the pause would be `LAST_RETRY_MS`. Does not keep the process alive. */
function retry(work: () => Promise<void>, afterMs: number): void {
  if (afterMs >= LAST_RETRY_MS) return
  setTimeout(() => void work().catch(() => retry(work, afterMs * 2)), afterMs).unref()
}

async function giveBack(
  ports: ImagePorts,
  caller: Caller,
  { image: { id }, transferId, kind }: Transfer,
  failure: string,
): Promise<void> {
  await ports.catalog.write(async (tx) => {
    const image = await tx.images.get(id)
    if (image?.notes.transferId !== transferId || image.status !== stateOf[kind]) return
    const { transferId: _, reservedBytes: __, ...notes } = image.notes
    const at = ports.now()
    await tx.images.update(id, image.version, {
      status: 'queued',
      size: null,
      virtualSize: null,
      notes: { ...notes, failure },
      updatedAt: at,
    })
    await recordAudit(tx, caller, kind, image, at, { failure }, 'failure')
  })
}

/** A commit that failed may have happened all the same: what the record names is kept. */
async function letGo({ catalog }: ImagePorts, { image: { id } }: Transfer, { lease, manifest }: Ingested): Promise<void> {
  const image = await catalog.images.get(id)
  const isNamed = image?.manifest === manifest || image?.stagedManifest === manifest
  await (isNamed ? lease.release() : lease.abandon())
}

const MAX_FAILURE_CHARACTERS = 500

/** For the owner of the image: what was refused on purpose is told, a fault of the service is not. */
export const failureText = (error: unknown): string =>
  (isServiceError(error) ? error.message : 'the service failed; its log has the reason').slice(0, MAX_FAILURE_CHARACTERS)

/** Why a transfer ended: who cut it off knows better than what was cut off. */
export const reasonOf = ({ signal }: Pick<Incoming, 'signal'>, error: unknown): unknown =>
  signal?.aborted && isServiceError(error, 'cancelled') ? signal.reason : error

const bytesOf = (kind: TransferKind, bytes: number) => (kind === 'stage' ? { stagedBytes: bytes } : { storedBytes: bytes })

export const tooLarge = (maxBytes: number): ServiceError =>
  new ServiceError('too-large', `an image has at most ${maxBytes} bytes here`, { maxBytes })

/** Chunks of images that no project owns. */
export const ownerOfChunks = ({ owner }: Pick<ImageRecord, 'owner'>): string => owner ?? ''
