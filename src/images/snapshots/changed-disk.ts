import { ServiceError } from '../../base/errors.ts'
import { type BlockSource, stack } from '../../disk/block/block-source.ts'
import { checked } from '../../disk/block/checked.ts'
import { memorySource } from '../../disk/block/memory-source.ts'
import { layer } from '../../disk/filters/layer.ts'
import { sized } from '../../disk/filters/sized.ts'
import { openImage, plainFormats } from '../../disk/formats/index.ts'
import type { ByteRange, ChunkStore, Ingested, IngestOptions } from '../../store/chunks/chunk-store.ts'
import { getLease, type LeasedImage } from '../leases/lease.ts'
import type { ImagePorts } from '../ports.ts'

/** A disk by what differs from what it lies on. */
export interface ChangedDisk {
  readonly bytes: number
  /** The lease of the disk under it, which may be smaller: zeros follow; null: zeros. */
  readonly leaseId: string | null
  /** From the lowest to the highest, each as large as the disk: a `hole` is as below. The caller closes them. */
  readonly layers: readonly BlockSource[]
}

/**
 * Makes a raw file of the store of the disk. Over a file that is a plain disk itself, no more is read than what the layers have; out of one
 * in another format, all its data.
 * @throws ServiceError as `ChunkStore.ingestDisk`; `not-found` where the lease is over; `unsupported` for a lease that is writable
 */
export async function ingestChangedDisk(
  { chunks }: Pick<ImagePorts, 'chunks'>,
  disk: ChangedDisk,
  below: LeasedImage | null,
  options: Omit<IngestOptions, 'digests' | 'likely'>,
): Promise<Ingested> {
  const layers = disk.layers.map((each, index) => layer(checked(each, `layer ${index}`)))
  const base = stack(await openBelow(chunks, below), [sized(disk.bytes)])
  try {
    const whole = stack(base, layers)
    if (!below || !plainFormats.includes(below.diskFormat)) return await chunks.ingestDisk(whole, options)
    const changed = changesIn(stack(memorySource(disk.bytes, []), layers))
    return await chunks.ingestDisk(whole, { ...options, over: { manifest: below.manifest, changed } })
  } finally {
    await base.close()
  }
}

/** What a disk that is put together of a lease and layers lies on. @throws ServiceError `not-found`, `unsupported` */
export async function imageBelow(
  { catalog }: Pick<ImagePorts, 'catalog'>,
  { leaseId }: Pick<ChangedDisk, 'leaseId'>,
): Promise<LeasedImage | null> {
  if (leaseId === null) return null
  const lease = (await getLease(catalog, leaseId))?.body
  if (!lease) throw new ServiceError('not-found', `there is no lease ${leaseId.slice(0, 80)} any more of the disk below`)
  if (lease.isWritable) {
    throw new ServiceError('unsupported', 'a snapshot lies on a disk that is not written to: what was written is a layer')
  }
  return lease.image
}

async function openBelow(chunks: ChunkStore, image: LeasedImage | null): Promise<BlockSource> {
  if (!image) return memorySource(0, [])
  const file = await chunks.open(image.manifest)
  try {
    return await openImage(image.diskFormat, file)
  } catch (error) {
    await file.close()
    throw error
  }
}

/** @param layers on nothing: a hole is where none of them has anything */
async function* changesIn(layers: BlockSource): AsyncGenerator<ByteRange> {
  for await (const { offset, length, kind } of layers.extents(0, layers.size)) if (kind !== 'hole') yield { offset, length }
}
