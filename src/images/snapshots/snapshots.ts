import { type Caller, serviceCaller } from '../../base/caller.ts'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import type { ImageRecord } from '../../store/catalog/catalog.ts'
import type { Ingested } from '../../store/chunks/chunk-store.ts'
import { isAttribute, newImageFrom, quoted } from '../attributes.ts'
import { inheritBootRecord } from '../boot-records/boot-records.ts'
import { requestDigests, startDigests } from '../complete-digests.ts'
import { createImage } from '../create-image.ts'
import { dropBytes, entomb } from '../delete-image.ts'
import type { LeasedImage } from '../leases/lease.ts'
import { noSuchImage } from '../policy.ts'
import type { ImagePorts } from '../ports.ts'
import { assertWithinQuota, quotaOf } from '../quotas.ts'
import { abandonTransfer, beginTransfer, completeTransfer, ownerOfChunks, type Transfer, tooLarge } from '../transfer.ts'
import { addPart, type NewPart } from './add-part.ts'
import { type ChangedDisk, imageBelow, ingestChangedDisk } from './changed-disk.ts'

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
export interface SaveOptions {
  readonly signal?: AbortSignal
  readonly onProgress?: (bytes: number) => void
}

const service = serviceCaller('req-snapshot')

/**
 * Images that are made of instances' disks, for parts of the service that have instances. The record notes that it is a snapshot, so
 * nobody else puts bytes into it. A kill at any time leaves it `queued`, with the parts that were acknowledged; whoever was making it goes on
 * or gives up.
 */
export class ImageSnapshots {
  readonly #ports: ImagePorts
  readonly #saving = new Map<string, { readonly work: Promise<void>; readonly over: AbortController }>()

  constructor(ports: ImagePorts) {
    this.#ports = ports
  }

  /**
   * An image that is `queued`, of a raw disk, in the caller's project: what can be refused is refused here. With an id of which the same
   * project has begun one already, it answers as before.
   * @throws ServiceError `denied`, `over-quota`, `invalid-request`, `too-large`; `conflict` where the id was ever used
   */
  async begin(caller: Caller, { id, name, bytes, minDisk, minRam, properties }: SnapshotDraft): Promise<void> {
    const ports = this.#ports
    const before = await ports.catalog.images.get(id)
    if (before && isSnapshot(before) && before.owner === caller.projectId) return
    if (caller.projectId === null) throw new ServiceError('denied', 'a snapshot belongs to a project: ask with a token of one')
    const { maxImageBytes } = ports.settings
    if (bytes > maxImageBytes) throw tooLarge(maxImageBytes)
    const wanted = newImageFrom({
      ...propertiesOnly(properties),
      id,
      name,
      disk_format: 'raw',
      container_format: 'bare',
      visibility: 'private',
      min_disk: minDisk,
      min_ram: minRam,
    })
    const quota = await quotaOf(ports, caller.projectId)
    await assertWithinQuota(ports.catalog, caller.projectId, quota, { storedBytes: bytes })
    await createImage(ports, caller, wanted, { snapshot: true })
    failpoint('snapshot:begun')
  }

  /**
   * What belongs to the image beside its disk, before the disk is saved. Durable when it settles, and seen when the image is active. One of
   * the same name takes the place of the one before. Of an image that is done it changes nothing.
   * @throws ServiceError `not-found` where the image was deleted meanwhile; `conflict` while its disk is being saved; `invalid-request`,
   *   `no-space`, `over-quota`, `cancelled`; what `body` throws
   */
  async addPart(imageId: string, part: NewPart, options: SaveOptions = {}): Promise<void> {
    const image = await this.#find(imageId)
    if (!isDone(image)) await addPart(this.#ports, image, part, options)
  }

  /**
   * `queued` → `saving` → `active`. Reads no more than the changes, and of what lies under them only what must be put together with
   * them. md5 and sha512 follow behind. Cut short, this may be asked for again, also by the next run of the service; asked for again when
   * it is done, it changes nothing, and while it runs, it waits for the same end.
   * @throws ServiceError `not-found` where the image was deleted meanwhile; `no-space`, `over-quota`, `corrupt`, `cancelled`
   */
  save(imageId: string, contents: SnapshotContents, options: SaveOptions = {}): Promise<void> {
    const running = this.#saving.get(imageId)
    if (running) return running.work
    const over = new AbortController()
    const signal = options.signal ? AbortSignal.any([options.signal, over.signal]) : over.signal
    const work = this.#save(imageId, contents, { ...options, signal }).finally(() => this.#saving.delete(imageId))
    this.#saving.set(imageId, { work, over })
    return work
  }

  /** It will not come: nothing of it is left. One that is active stays; giving up twice succeeds. */
  async giveUp(imageId: string): Promise<void> {
    await this.#delete(imageId, ({ status }) => status === 'queued' || status === 'saving')
  }

  /** Deletes one that was made here, whatever has become of it, also where it is protected. One that is gone is as good as deleted. */
  async remove(imageId: string): Promise<void> {
    await this.#delete(imageId, () => true)
  }

  /**
   * Deletes the oldest of the project's active snapshots that have these properties, until so many are left. Protected ones stay, and count.
   * @returns how many it deleted
   */
  async rotate(projectId: string, properties: Readonly<Record<string, string>>, keep: number): Promise<number> {
    const found = await snapshotsWith(this.#ports, projectId, properties)
    let left = found.length
    for (const { id } of found.sort((a, b) => a.createdAt - b.createdAt)) {
      if (left <= keep) break
      if (await this.#delete(id, (image) => image.status === 'active' && !image.protected)) left -= 1
    }
    return found.length - left
  }

  /** @param isOver asked of the snapshot as it stands. @returns whether it was there, and is deleted */
  async #delete(imageId: string, isOver: (image: ImageRecord) => boolean): Promise<boolean> {
    const running = this.#saving.get(imageId)
    running?.over.abort()
    await running?.work.catch(() => undefined) // whoever asked for it is told
    const gone = await this.#ports.catalog.write(async (tx) => {
      const image = await tx.images.get(imageId)
      return image && isSnapshot(image) && isOver(image) ? entomb(this.#ports, tx, service, image) : undefined
    })
    if (!gone) return false
    failpoint('snapshot:deleted')
    await dropBytes(this.#ports, gone)
    return true
  }

  async #save(imageId: string, { disk, properties }: SnapshotContents, options: SaveOptions): Promise<void> {
    const ports = this.#ports
    if (isDone(await this.#find(imageId))) return
    const below = await imageBelow(ports, disk)
    const transfer = await beginTransfer(ports, service, imageId, 'snapshot', disk.bytes)
    failpoint('snapshot:saving')
    let ingested: Ingested | undefined
    try {
      ingested = await ingestChangedDisk(ports, disk, below, ingestOptions(transfer, options))
      failpoint('snapshot:ingested')
      await complete(ports, transfer, ingested, below, properties)
      failpoint('snapshot:active')
    } catch (error) {
      await abandonTransfer(ports, service, transfer, ingested, error)
      throw isServiceError(error, 'gone') ? noSuchImage(imageId) : error
    }
    startDigests(ports)
    const image = { ...transfer.image, manifest: ingested.manifest, diskFormat: 'raw' }
    if (below) await inheritBootRecord(ports, below, image).catch(() => undefined) // a hint: the first start makes another
  }

  /** @throws ServiceError `not-found` */
  async #find(imageId: string): Promise<ImageRecord> {
    const image = await this.#ports.catalog.images.get(imageId)
    if (!image || !isSnapshot(image)) throw noSuchImage(imageId)
    return image
  }
}

const PAGE = 500

async function snapshotsWith(
  { catalog }: ImagePorts,
  projectId: string,
  properties: Readonly<Record<string, string>>,
): Promise<Pick<ImageRecord, 'id' | 'createdAt'>[]> {
  const found: Pick<ImageRecord, 'id' | 'createdAt'>[] = []
  for (const hidden of [false, true]) {
    for (let marker: string | undefined; ; ) {
      const page = await catalog.images.list({
        viewer: { projectId },
        visibility: 'all',
        owner: projectId,
        hidden,
        statuses: ['active'],
        properties,
        limit: PAGE,
        ...(marker === undefined ? {} : { marker }),
      })
      for (const image of page) if (isSnapshot(image)) found.push({ id: image.id, createdAt: image.createdAt })
      marker = page.at(-1)?.id
      if (marker === undefined || page.length < PAGE) break
    }
  }
  return found
}

const isSnapshot = ({ notes, status }: ImageRecord): boolean => notes.snapshot === true && status !== 'deleted'
const isDone = ({ manifest }: ImageRecord): boolean => manifest !== null

async function complete(
  ports: ImagePorts,
  transfer: Transfer,
  ingested: Ingested,
  below: LeasedImage | null,
  properties: Readonly<Record<string, string>>,
): Promise<void> {
  const { manifest, fileBytes } = ingested
  const changes = (held: ImageRecord): Partial<ImageRecord> => ({
    status: 'active',
    manifest,
    size: fileBytes,
    virtualSize: fileBytes,
    diskFormat: 'raw',
    containerFormat: 'bare',
    properties: { ...held.properties, ...properties },
    notes: below ? { parentImage: below.id } : {},
  })
  await completeTransfer(ports, service, transfer, ingested, changes, (tx) => requestDigests(tx, transfer.image.id, manifest))
}

const ingestOptions = ({ image, maxBytes }: Transfer, { signal, onProgress }: SaveOptions) => ({
  owner: ownerOfChunks(image),
  maxBytes,
  ...(signal ? { signal } : {}),
  ...(onProgress ? { onProgress } : {}),
})

/** @throws ServiceError `invalid-request` for what is no property but a member of every image */
function propertiesOnly(properties: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const wrong = Object.keys(properties).find(isAttribute)
  if (wrong === undefined) return properties
  throw new ServiceError('invalid-request', `${quoted(wrong)} is an attribute of every image, not a property`)
}
