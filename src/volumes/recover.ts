import { type Caller, serviceCaller } from '../base/caller.ts'
import { changeVolume } from './change-volume.ts'
import { startVolumeDeletion } from './delete-volume.ts'
import { startExtending } from './extend-volume.ts'
import { faultOf } from './faults.ts'
import { sealCopied, startMaking } from './make-volume.ts'
import type { VolumePorts } from './ports.ts'
import type { SnapshotRecord, VolumeRecord, VolumeUpload } from './records.ts'
import { changeSnapshot } from './snapshots/change-snapshot.ts'
import { sealSnapshot, startStoring } from './snapshots/create-snapshot.ts'
import { startSnapshotDeletion } from './snapshots/delete-snapshot.ts'
import { snapshots, volumes } from './store.ts'
import { giveUp, startUploading } from './upload-volume.ts'

/**
 * Takes up what a stop or a kill cut short; it goes on in the background. To be called before the service answers: nobody else seals or
 * settles yet.
 */
export async function recoverVolumes(ports: VolumePorts): Promise<void> {
  const { documents } = ports.catalog
  const [allVolumes, allSnapshots] = [await volumes.list(documents), await snapshots.list(documents)]
  await releaseLost(ports, allVolumes, allSnapshots)
  await takeUpLayers(ports, allVolumes, allSnapshots)
  for (const volume of allVolumes) {
    if (volume.status === 'creating' && volume.source.kind !== 'volume') startMaking(ports, callerFor(volume), volume)
    if (volume.status === 'extending') startExtending(ports, volume.id)
  }
  // after all that reads them
  for (const snapshot of allSnapshots) if (snapshot.status === 'deleting') startSnapshotDeletion(ports, snapshot)
  for (const { id, status } of allVolumes) if (status === 'deleting') startVolumeDeletion(ports, id)
}

/** Who may make it from the image was asked when the volume was. */
const callerFor = ({ projectId, userId }: VolumeRecord): Caller => ({ ...serviceCaller('req-start'), projectId, userId })

/** What reads layers of a volume goes in the order in which they were sealed; what was not sealed yet is sealed now. */
async function takeUpLayers(
  ports: VolumePorts,
  allVolumes: readonly VolumeRecord[],
  allSnapshots: readonly SnapshotRecord[],
): Promise<void> {
  const works = [
    ...allSnapshots.filter(({ status }) => status === 'creating').map((snapshot) => ofSnapshot(ports, snapshot)),
    ...allVolumes.flatMap(({ id, status, upload }) => (status === 'uploading' && upload ? [ofUpload(ports, id, upload)] : [])),
    ...allVolumes.flatMap((volume) =>
      volume.status === 'creating' && volume.source.kind === 'volume' ? [ofCopy(ports, volume, volume.source)] : [],
    ),
  ]
  for (const { takeUp } of works.sort((a, b) => (a.layer ?? LAST) - (b.layer ?? LAST))) await takeUp()
}

const LAST = Number.MAX_SAFE_INTEGER

interface LayerWork {
  readonly layer: number | null
  readonly takeUp: () => Promise<void>
}

const ofSnapshot = (ports: VolumePorts, snapshot: SnapshotRecord): LayerWork => ({
  layer: snapshot.layer,
  async takeUp() {
    if (snapshot.layer !== null) return startStoring(ports, snapshot.id, snapshot.volumeId)
    await sealSnapshot(ports, snapshot).catch(async (error: unknown) => {
      ports.onProblem(error)
      await changeSnapshot(ports, snapshot.id, () => ({ status: 'error', fault: faultOf(error, NOT_SEALED) }))
    })
  },
})

const ofCopy = (ports: VolumePorts, volume: VolumeRecord, { volumeId, layer }: CopiedSource): LayerWork => ({
  layer,
  async takeUp() {
    const caller = callerFor(volume)
    if (layer !== null) return startMaking(ports, caller, volume)
    await sealCopied(ports, caller, volume, volumeId).catch(async (error: unknown) => {
      ports.onProblem(error)
      await changeVolume(ports, volume.id, () => ({ status: 'error', fault: faultOf(error, NOT_SEALED) }))
    })
  },
})
const NOT_SEALED = 'the service was killed before it was taken, and could not take it afterwards'
/** One that was not sealed was not acknowledged: it is given up. */
const ofUpload = (ports: VolumePorts, id: string, { imageId, layer }: VolumeUpload): LayerWork => ({
  layer,
  takeUp: async () => (layer === null ? giveUp(ports, id, imageId) : startUploading(ports, id)),
})
type CopiedSource = Extract<VolumeRecord['source'], { kind: 'volume' }>

/** Made for a volume or a snapshot of which nothing is left. */
async function releaseLost(
  { contents }: VolumePorts,
  allVolumes: readonly VolumeRecord[],
  allSnapshots: readonly SnapshotRecord[],
): Promise<void> {
  const known = {
    volume: new Set(allVolumes.map(({ id }) => id)),
    'volume-snapshot': new Set(allSnapshots.map(({ id }) => id)),
    'volume-upload': new Set(allVolumes.flatMap(({ upload }) => (upload ? [upload.imageId] : []))),
  } as const
  for (const kind of ['volume', 'volume-snapshot', 'volume-upload'] as const) {
    for await (const id of contents.held(kind)) if (!known[kind].has(id)) await contents.release(id)
  }
}
