import { failpoint } from '../../base/failpoint.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { changeInstance } from '../change-instance.ts'
import { changeJob } from '../change-job.ts'
import type { Sealed } from '../hypervisor/disk-layers.ts'
import type { JobReport } from '../job-progress.ts'
import { endMove, moveDisk, ROOT } from '../launch/move-disk.ts'
import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord, SnapshotJob } from '../records.ts'
import { addMachine, sealWithMemory } from './machine-parts.ts'
import { startClone } from './start-clone.ts'

type Backup = NonNullable<SnapshotJob['backup']>

/**
 * Seals the disk, makes the image of what was sealed and of what lies under it, and puts the instance on that image: what was sealed need
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
  const sealed = job.sealed ?? (await seal(ports, settled, job, signal))
  if (!job.isSaved) await save(ports, settled, job, sealed, signal, report)
  await moveOnto(ports, settled, job, sealed).catch((error) => {
    signal.throwIfAborted()
    ports.onProblem(error) // the image is there, and the move is ended another time
  })
  if (job.cloneId !== null) await startClone(ports, job.imageId, job.cloneId)
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

async function seal(ports: InstancePorts, instance: InstanceRecord, job: SnapshotJob, signal: AbortSignal): Promise<Sealed> {
  const { id } = instance
  if (job.withMachine && !job.withMemory) await addMachine(ports, instance, job.imageId, null)
  const sealed = job.withMemory
    ? await sealWithMemory(ports, instance, job.imageId, signal)
    : await ports.hypervisor.seal(id, ports.settings.freezeMs)
  failpoint('instance:sealed')
  await changeInstance(ports, id, ({ taskState }) => (taskState === 'deleting' ? null : { taskState: 'image_uploading' }))
  await changeJob(ports, id, 'snapshot', () => ({ sealed }))
  failpoint('instance:sealing-noted')
  return sealed
}

async function save(
  { hypervisor, snapshots, ...ports }: InstancePorts,
  { id, leaseId, rootBytes }: InstanceRecord,
  { imageId }: SnapshotJob,
  { layers, consistency, evidence }: Sealed,
  signal: AbortSignal,
  report: JobReport,
): Promise<void> {
  const opened: BlockSource[] = []
  try {
    for (const layer of layers[ROOT] ?? []) opened.push(await hypervisor.openLayer(id, ROOT, layer))
    const disk = { bytes: rootBytes, leaseId, layers: opened }
    const properties = { imprint_consistency: consistency, imprint_consistency_evidence: evidence.slice(0, 255) }
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
