import { failpoint } from '../../base/failpoint.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { changeJob } from '../change-job.ts'
import type { Sealed } from '../hypervisor/disk-layers.ts'
import type { JobReport } from '../job-progress.ts'
import { ROOT } from '../launch/launch.ts'
import { endMove, moveDisk } from '../launch/move-disk.ts'
import type { ChangedDisk, InstancePorts } from '../ports.ts'
import { type InstanceRecord, type SnapshotJob, startsFromVolume, type VolumeSnapshot } from '../records.ts'
import { ROOT_INDEX } from '../volumes/attachment.ts'
import { mappingOf } from '../volumes/image-mapping.ts'
import { sealDisks } from './seal-disks.ts'
import { startClone } from './start-clone.ts'

type Backup = NonNullable<SnapshotJob['backup']>
type Moment = Sealed & Pick<SnapshotJob, 'volumes'>

/**
 * Seals the disks, makes the image of what was sealed and of what lies under it, and puts the instance on that image: what was sealed need
 * not be kept then, and the next snapshot reads only what is written from now on. After a kill it goes on where the job says.
 * @throws ServiceError where there will be no image
 */
export async function takeSnapshot(
  ports: InstancePorts,
  instance: InstanceRecord,
  job: SnapshotJob,
  signal: AbortSignal,
  report: JobReport,
) {
  const settled = await endMove(ports, instance)
  const { sealed, volumes } = job.sealed ? job : await sealDisks(ports, settled, job, signal)
  if (!sealed) throw new Error(`instance ${instance.id} was sealed and nobody knows to what`)
  const moment = { ...sealed, volumes }
  if (!job.isSaved) await save(ports, settled, job, moment, signal, report)
  await moveOnto(ports, settled, job, moment).catch((error) => {
    signal.throwIfAborted()
    ports.onProblem(error) // the image is there, and the move is ended another time
  })
  if (job.cloneId !== null) await startClone(ports, { ...job, volumes }, job.cloneId)
  if (job.withMachine) {
    // what they keep is in the image; one that stays is seen by its owner
    for (const { id } of volumes) await ports.volumes.deleteSnapshot(id).catch(ports.onProblem)
  }
  if (job.backup) await rotate(ports, instance, job.backup).catch(ports.onProblem) // the next one does it as well
}

async function moveOnto(
  ports: InstancePorts,
  { id }: InstanceRecord,
  { imageId }: SnapshotJob,
  { layers }: Sealed,
): Promise<void> {
  const through = layers[ROOT]?.at(-1)
  if (through !== undefined) await moveDisk(ports, id, imageId, through)
}

const rotate = ({ snapshots }: InstancePorts, { id, projectId }: InstanceRecord, { type, rotation }: Backup): Promise<number> =>
  snapshots.rotate(projectId, { instance_uuid: id, image_type: 'backup', backup_type: type }, rotation)

async function save(
  ports: InstancePorts,
  instance: InstanceRecord,
  job: SnapshotJob,
  moment: Moment,
  signal: AbortSignal,
  report: JobReport,
): Promise<void> {
  const { consistency, evidence, volumes } = moment
  await ports.volumes.stored(volumes, signal)
  if (job.withMachine) await addVolumes(ports, instance, job, volumes, signal)
  const properties = {
    imprint_consistency: consistency,
    imprint_consistency_evidence: evidence.slice(0, 255),
    ...(startsFromVolume(instance) && !job.withMachine ? mappingOf(volumes, instance.hardware.diskBus) : {}),
  }
  await withDisk(ports, instance, job, moment, async (disk) => {
    const onProgress = (doneBytes: number) => report({ doneBytes, totalBytes: disk.bytes })
    await ports.snapshots.save(job.imageId, { disk, properties }, { signal, onProgress })
  })
  failpoint('instance:saved')
  await changeJob(ports, instance.id, 'snapshot', () => ({ isSaved: true }))
}

/** The disk that the image is: the instance's own, or the volume that it starts from, or none where the image only names volumes. */
async function withDisk(
  { hypervisor }: InstancePorts,
  instance: InstanceRecord,
  { withMachine }: SnapshotJob,
  { layers, volumes }: Moment,
  work: (disk: ChangedDisk) => Promise<void>,
): Promise<void> {
  const { id, leaseId, rootBytes } = instance
  if (startsFromVolume(instance)) {
    const root = withMachine ? volumes.find(({ bootIndex }) => bootIndex === ROOT_INDEX) : undefined
    return work({ bytes: root?.bytes ?? 0, leaseId: root?.id ?? null, layers: [] })
  }
  const opened: BlockSource[] = []
  try {
    for (const layer of layers[ROOT] ?? []) opened.push(await hypervisor.openLayer(id, ROOT, layer))
    await work({ bytes: rootBytes, leaseId, layers: opened })
  } finally {
    await Promise.allSettled(opened.map((layer) => layer.close()))
  }
}

/** Beside the disk that the image is. A snapshot of a volume is a lease of what it keeps, by its own id. */
async function addVolumes(
  { snapshots }: InstancePorts,
  instance: InstanceRecord,
  { imageId }: SnapshotJob,
  volumes: readonly VolumeSnapshot[],
  signal: AbortSignal,
): Promise<void> {
  for (const { id, volumeId, bytes, bootIndex } of volumes) {
    if (startsFromVolume(instance) && bootIndex === ROOT_INDEX) continue
    const disk = { bytes, leaseId: id, layers: [] }
    await snapshots.addPart(imageId, { kind: 'disk', name: volumeId, disk }, { signal })
  }
}
