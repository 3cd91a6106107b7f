import { randomUUID } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import { isServiceError, ServiceError } from '../base/errors.ts'
import { failpoint } from '../base/failpoint.ts'
import { GiB } from '../base/units.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import { findVolume } from './find-volume.ts'
import { assertHostHasRoom } from './host-room.ts'
import { sealCopied, startMaking } from './make-volume.ts'
import { assertMetadata } from './metadata.ts'
import { authorizeService } from './policy.ts'
import type { SourceImage, VolumePorts } from './ports.ts'
import { assertWithinQuota, quotaOf } from './quotas.ts'
import type { Metadata, VolumeRecord, VolumeSource } from './records.ts'
import { findSnapshot } from './snapshots/find-snapshot.ts'
import { volumes } from './store.ts'

export interface NewVolume {
  /** A UUID; absent: a new one. */
  readonly id?: string
  readonly name: string | null
  readonly description: string | null
  /** Null: as large as what it is made from. */
  readonly sizeGiB: number | null
  readonly from: WantedSource
  readonly metadata: Metadata
}
export type WantedSource =
  | { readonly kind: 'blank' }
  /** `part`: of what the image holds beside its disk; absent: its disk. */
  | { readonly kind: 'image'; readonly imageId: string; readonly part?: string | undefined }
  | { readonly kind: 'snapshot'; readonly snapshotId: string }
  | { readonly kind: 'volume'; readonly volumeId: string }

/** Of a disk that is written here: that of its map. */
export const MAX_VOLUME_GIB = 1024

/** What a volume takes over from what it is made from. */
interface Origin {
  readonly source: VolumeSource
  readonly leastGiB: number
  readonly isBootable: boolean
  readonly imageMetadata: Metadata | null
}

/**
 * `POST /volumes`: a record that is `creating`; its disk is made in the background, and is ready at once, since nothing is copied but
 * what a volume that is copied had written. All that can be refused is refused before anything is recorded.
 * @throws ServiceError `denied`; `invalid-request`; `not-found`, `conflict`, `unsupported` for what it is to be made from; `over-quota`; `no-space`
 */
export async function createVolume(ports: VolumePorts, caller: Caller, wanted: NewVolume): Promise<VolumeRecord> {
  const projectId = authorizeCreate(caller)
  assertMetadata(wanted.metadata)
  const image = wanted.from.kind === 'image' ? await asRequested(ports, caller, wanted.from) : null
  const [quota, room] = [await quotaOf(ports, projectId), await ports.disk.room()]
  const at = ports.now()
  const volume = await ports.catalog.write(async ({ documents }) => {
    const { leastGiB, ...origin } = await originOf(documents, caller, wanted.from, image)
    const sizeGiB = sizeFrom(wanted.sizeGiB, leastGiB)
    await assertWithinQuota(documents, projectId, quota, { volumes: 1, gigabytes: sizeGiB }, sizeGiB)
    await assertHostHasRoom(ports, documents, room, sizeGiB * GiB)
    const { name, description, metadata } = wanted
    const made: VolumeRecord = {
      ...{
        id: wanted.id ?? randomUUID(),
        name,
        description,
        projectId,
        userId: caller.userId,
        sizeGiB,
        status: 'creating',
        fault: null,
      },
      ...{
        ...origin,
        isReadOnly: false,
        metadata,
        attachment: null,
        growingTo: null,
        upload: null,
        createdAt: at,
        updatedAt: at,
      },
    }
    await volumes.put(documents, made)
    return made
  })
  failpoint('volume:recorded')
  await begin(ports, caller, volume)
  return volume
}

/** Where what is copied cannot be sealed, nothing was begun. */
async function begin(ports: VolumePorts, caller: Caller, volume: VolumeRecord): Promise<void> {
  if (volume.source.kind !== 'volume') return startMaking(ports, caller, volume)
  try {
    await sealCopied(ports, caller, volume, volume.source.volumeId)
  } catch (error) {
    await ports.catalog.write(async ({ documents }) => void (await volumes.delete(documents, volume.id)))
    throw error
  }
}

export function authorizeCreate(caller: Caller): string {
  authorizeService(caller, 'create')
  if (caller.projectId !== null) return caller.projectId
  throw new ServiceError('denied', 'a volume belongs to a project: log in with one as scope')
}

type FromImage = Extract<WantedSource, { kind: 'image' }>

/** An image that is named and cannot be had makes the request wrong: Cinder answers 400. */
async function asRequested({ images }: VolumePorts, caller: Caller, { imageId, part }: FromImage): Promise<SourceImage> {
  try {
    return await (part === undefined ? images.show(caller, imageId) : images.showPart(caller, imageId, part))
  } catch (cause) {
    if (!isServiceError(cause) || !['not-found', 'conflict', 'unsupported'].includes(cause.code)) throw cause
    throw new ServiceError(
      'invalid-request',
      `Invalid image identifier or unable to access requested image: ${cause.message}`,
      cause.details,
      { cause },
    )
  }
}

async function originOf(
  documents: DocumentReader,
  caller: Caller,
  from: WantedSource,
  image: SourceImage | null,
): Promise<Origin> {
  if (image && from.kind === 'image') return originOfImage(image, from)
  if (from.kind === 'snapshot') {
    const { id, sizeGiB, volumeId } = await findSnapshot(documents, caller, from.snapshotId, 'use')
    const volume = await volumes.get(documents, volumeId)
    return { source: { kind: 'snapshot', snapshotId: id }, leastGiB: sizeGiB, ...bootFactsOf(volume) }
  }
  if (from.kind === 'volume') {
    const volume = await findVolume(documents, caller, from.volumeId, 'copy')
    return { source: { kind: 'volume', volumeId: volume.id, layer: null }, leastGiB: volume.sizeGiB, ...bootFactsOf(volume) }
  }
  return { source: { kind: 'blank' }, leastGiB: 1, isBootable: false, imageMetadata: null }
}

export const bootFactsOf = (volume: VolumeRecord | undefined): Pick<Origin, 'isBootable' | 'imageMetadata'> => ({
  isBootable: volume?.isBootable ?? false,
  imageMetadata: volume?.imageMetadata ?? null,
})

function originOfImage({ id, name, diskBytes, minDisk, minRam, properties }: SourceImage, { part }: FromImage): Origin {
  if (part === undefined && diskBytes === 0 && properties.block_device_mapping !== undefined) {
    throw new ServiceError(
      'invalid-request',
      `Invalid image identifier: image ${id} holds no disk: its block_device_mapping names snapshots of volumes; make the volume of one of these`,
      { imageId: id },
    )
  }
  if (part !== undefined) {
    const source = { kind: 'image', imageId: id, part } as const
    return { source, leastGiB: Math.ceil(diskBytes / GiB), isBootable: false, imageMetadata: null }
  }
  return {
    source: { kind: 'image', imageId: id },
    leastGiB: Math.max(1, minDisk, Math.ceil(diskBytes / GiB)),
    isBootable: true,
    imageMetadata: {
      ...properties,
      image_id: id,
      image_name: name ?? '',
      min_disk: String(minDisk),
      min_ram: String(minRam),
      size: String(diskBytes),
    },
  }
}

/** @throws ServiceError `invalid-request`, `too-large` */
function sizeFrom(wanted: number | null, least: number): number {
  const sizeGiB = wanted ?? least
  if (sizeGiB < least) {
    throw new ServiceError(
      'invalid-request',
      `Invalid input received: Volume size ${sizeGiB}GB cannot be smaller than the ${least}GB that it is made from needs.`,
      { least },
    )
  }
  assertSize(sizeGiB)
  return sizeGiB
}

/** @throws ServiceError `too-large` */
export function assertSize(sizeGiB: number): void {
  if (sizeGiB <= MAX_VOLUME_GIB) return
  throw new ServiceError('too-large', `Invalid input received: a volume here has at most ${MAX_VOLUME_GIB} GiB, not ${sizeGiB}`, {
    most: MAX_VOLUME_GIB,
  })
}
