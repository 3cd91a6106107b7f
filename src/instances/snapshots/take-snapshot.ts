import { failpoint } from '../../base/failpoint.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { changeJob } from '../change-job.ts'
import type { Sealed } from '../hypervisor/disk-layers.ts'
import type { JobReport } from '../job-progress.ts'
import { endMove, moveDisk, ROOT } from '../launch/move-disk.ts'
import type { InstancePorts } from '../ports.ts'
import { type InstanceRecord, type SnapshotJob, startsFromVolume } from '../records.ts'
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
  { hypervisor, snapshots, ...ports }: InstancePorts,
  instance: InstanceRecord,
  { imageId }: SnapshotJob,
  { layers, consistency, evidence, volumes }: Moment,
  signal: AbortSignal,
  report: JobReport,
): Promise<void> {
  const { id, leaseId, rootBytes, hardware } = instance
  const opened: BlockSource[] = []
  try {
    await ports.volumes.stored(volumes, signal)
    for (const layer of layers[ROOT] ?? []) opened.push(await hypervisor.openLayer(id, ROOT, layer))
    const disk = { bytes: rootBytes, leaseId, layers: opened }
    const properties = {
      imprint_consistency: consistency,
      imprint_consistency_evidence: evidence.slice(0, 255),
      ...(startsFromVolume(instance) ? mappingOf(volumes, hardware.diskBus) : {}), // its image has no bytes
    }
    await snapshots.save(
      imageId,
      { disk, properties },
      { signal, onProgress: (doneBytes) => report({ doneBytes, totalBytes: rootBytes }) },
    )
  } finally {
    await Promise.allSettled(opened.map((layer) => layer.close()))
  }
  failpoint('instance:saved')
  await changeJob(ports, id, 'snapshot', () => ({ isSaved: true }))
}
