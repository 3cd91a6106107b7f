import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { MiB } from '../../base/units.ts'
import type { ImageRecord } from '../../store/catalog/catalog.ts'
import type { Ingested } from '../../store/chunks/chunk-store.ts'
import { quoted } from '../attributes.ts'
import { getPart, isPartName, MAX_PARTS, partsOf, putPart, type StoredPart } from '../parts/image-parts.ts'
import { noSuchImage } from '../policy.ts'
import type { ImagePorts } from '../ports.ts'
import { assertWithinQuota, quotaOf } from '../quotas.ts'
import { inTheEnd, ownerOfChunks } from '../transfer.ts'
import { type ChangedDisk, imageBelow, ingestChangedDisk } from './changed-disk.ts'

/** Names are letters, digits and `-`, at most 40. */
export type NewPart =
  | { readonly kind: 'disk'; readonly name: string; readonly disk: ChangedDisk }
  | { readonly kind: 'memory'; readonly name: string; readonly body: AsyncIterable<Uint8Array> }
  /** What is needed to make the same machine again: JSON. */
  | { readonly kind: 'machine'; readonly name: string; readonly text: string }

interface PartOptions {
  readonly signal?: AbortSignal
  readonly onProgress?: (bytes: number) => void
}

/** A machine with all its disks, ports and properties takes some thousands. */
const MAX_MACHINE_BYTES = MiB

/** See `ImageSnapshots.addPart`. */
export async function addPart(ports: ImagePorts, image: ImageRecord, part: NewPart, options: PartOptions): Promise<void> {
  assertQueued(image)
  if (!isPartName(part.name)) {
    throw new ServiceError('invalid-request', `${quoted(part.name)} names no part: letters, digits and "-", at most 40`)
  }
  const ingested = await ingestPart(ports, image, part, options)
  failpoint('snapshot:part-ingested')
  const { manifest, fileBytes: bytes } = ingested
  const stored: StoredPart = { imageId: image.id, name: part.name, kind: part.kind, bytes, manifest }
  const before = await record(ports, stored).catch(async (error: unknown) => {
    await letGo(ports, stored, ingested)
    throw error
  })
  failpoint('snapshot:part-recorded')
  await inTheEnd(() => ingested.lease.release())
  if (before) await ports.chunks.drop(before.manifest, ownerOfChunks(image))
}

async function ingestPart(ports: ImagePorts, image: ImageRecord, part: NewPart, options: PartOptions): Promise<Ingested> {
  const into = { ...options, owner: ownerOfChunks(image), maxBytes: ports.settings.maxImageBytes }
  if (part.kind === 'disk') return ingestChangedDisk(ports, part.disk, await imageBelow(ports, part.disk), into)
  return ports.chunks.ingest(part.kind === 'memory' ? part.body : bytesOf(part.text), into)
}

async function* bytesOf(text: string): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text)
  if (bytes.length > MAX_MACHINE_BYTES) {
    throw new ServiceError('too-large', `a machine is told in at most ${MAX_MACHINE_BYTES} bytes of JSON`, {
      bytes: bytes.length,
    })
  }
  yield bytes
}

/** @returns the part whose place it took. @throws ServiceError `not-found`, `conflict`, `too-large`, `over-quota` */
async function record(ports: ImagePorts, part: StoredPart): Promise<StoredPart | undefined> {
  const owner = (await ports.catalog.images.get(part.imageId))?.owner ?? null
  const quota = await quotaOf(ports, owner, ['image_size_total'])
  return ports.catalog.write(async (tx) => {
    const image = await tx.images.get(part.imageId)
    if (!image || image.status === 'deleted') throw noSuchImage(part.imageId)
    assertQueued(image)
    const parts = await partsOf(tx, image.id)
    const before = parts.find(({ name }) => name === part.name)
    if (!before && parts.length >= MAX_PARTS) {
      throw new ServiceError('too-large', `an image has at most ${MAX_PARTS} parts`, { max: MAX_PARTS })
    }
    const othersBytes = parts.reduce((sum, { name, bytes }) => sum + (name === part.name ? 0 : bytes), 0)
    const more = part.bytes - (before?.bytes ?? 0)
    if (more > 0) await assertWithinQuota(tx, image.owner, quota, { storedBytes: more })
    const notes = { ...image.notes, partBytes: othersBytes + part.bytes }
    await tx.images.update(image.id, image.version, { notes, updatedAt: image.updatedAt })
    await putPart(tx, part)
    return before
  })
}

/** A commit that failed may have happened all the same: what the record names is kept. */
function letGo({ catalog }: ImagePorts, part: StoredPart, { lease }: Ingested): Promise<void> {
  return inTheEnd(async () => {
    const isNamed = (await getPart(catalog, part.imageId, part.name))?.manifest === part.manifest
    await (isNamed ? lease.release() : lease.abandon())
  })
}

function assertQueued({ id, status }: ImageRecord): void {
  if (status === 'queued') return
  throw new ServiceError('conflict', `image ${id} is ${status}: parts are added while it is queued`, { imageId: id, status })
}
