import { randomUUID } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import { isServiceError } from '../base/errors.ts'
import { failpoint } from '../base/failpoint.ts'
import { GiB } from '../base/units.ts'
import { changeVolume, changeVolumeAs } from './change-volume.ts'
import { isForOwner } from './faults.ts'
import type { VolumePorts } from './ports.ts'
import type { Metadata, VolumeRecord, VolumeUpload } from './records.ts'
import { sealFor } from './seal.ts'

export interface WantedImage {
  readonly name: string
  /** Whether the volume may be attached: then the image is as after a power cut. */
  readonly mayBeInUse: boolean
}

/**
 * `os-volume_upload_image`: the volume as it is now, as a raw image of the caller's project. It is stored in the background, by what changed
 * since the volume was stored last; the image is `queued` until then.
 * @returns the volume, and the image's id
 * @throws ServiceError `not-found`, `denied`, `conflict`; `over-quota`, `too-large`; `unavailable`, `no-space`
 */
export async function uploadVolume(
  ports: VolumePorts,
  caller: Caller,
  id: string,
  { name, mayBeInUse }: WantedImage,
): Promise<{ readonly volume: VolumeRecord; readonly imageId: string }> {
  const imageId = randomUUID()
  const verb = mayBeInUse ? 'upload-in-use' : 'upload'
  const volume = await changeVolumeAs(ports, caller, id, verb, ({ status }) => ({
    status: 'uploading',
    upload: { imageId, before: status === 'in-use' ? 'in-use' : 'available', layer: null },
  }))
  failpoint('volume:uploading')
  try {
    await ports.images.begin(caller, { id: imageId, name, ...factsOf(volume) })
    await sealFor(ports, volume.id, async (layer) => {
      await changeVolume(ports, volume.id, ({ upload }) => (upload ? { upload: { ...upload, layer } } : null))
      startUploading(ports, volume.id)
    })
  } catch (error) {
    await giveUp(ports, volume.id, imageId)
    throw error
  }
  return { volume, imageId }
}

/** Cut short it is left as it stands: the next start takes it up. */
export function startUploading(ports: VolumePorts, id: string): void {
  ports.tasks.start(id, async (signal) => {
    const volume = await changeVolume(ports, id, () => null)
    const upload = volume?.upload
    if (volume?.status !== 'uploading' || !upload) return
    try {
      await store(ports, volume, upload, signal)
    } catch (error) {
      if (signal.aborted) return
      const isDeleted = isServiceError(error, 'not-found') // somebody wants the image no more
      if (!isDeleted && !isForOwner(error)) ports.onProblem(error)
      return giveUp(ports, id, upload.imageId)
    }
    failpoint('volume:uploaded')
    await end(ports, id, upload.imageId)
  })
}

async function store(
  ports: VolumePorts,
  volume: VolumeRecord,
  { imageId, layer }: VolumeUpload,
  signal: AbortSignal,
): Promise<void> {
  if (layer === null) throw new Error(`volume ${volume.id} is uploaded and was never sealed`)
  const bytes = volume.sizeGiB * GiB
  await ports.contents.settle(volume.id, layer, volume.projectId, { id: imageId, kind: 'volume-upload', bytes }, signal)
  await ports.images.save(imageId, { disk: { bytes, leaseId: imageId, layers: [] }, properties: {} }, { signal })
}

/** The image will not come, and the volume is as it was. */
export async function giveUp(ports: VolumePorts, id: string, imageId: string): Promise<void> {
  await ports.images.giveUp(imageId)
  await end(ports, id, imageId)
}

async function end(ports: VolumePorts, id: string, imageId: string): Promise<void> {
  await ports.contents.release(imageId)
  await changeVolume(ports, id, ({ status, upload }) =>
    upload?.imageId === imageId
      ? { ...(status === 'deleting' ? {} : { status: upload.before }), upload: null } // deleted by force meanwhile
      : null,
  )
}

/** What Cinder keeps beside the properties of an image that a volume was made from. */
const notProperties: ReadonlySet<string> = new Set([
  ...['image_id', 'image_name', 'size', 'min_disk', 'min_ram', 'checksum', 'container_format', 'disk_format'],
])

function factsOf({ sizeGiB, imageMetadata }: VolumeRecord) {
  const properties: Metadata = Object.fromEntries(
    Object.entries(imageMetadata ?? {}).filter(([name]) => !notProperties.has(name)),
  )
  const minRam = Number(imageMetadata?.min_ram ?? 0)
  return { bytes: sizeGiB * GiB, minDisk: sizeGiB, minRam: Number.isSafeInteger(minRam) && minRam > 0 ? minRam : 0, properties }
}
