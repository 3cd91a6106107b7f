import { randomUUID } from 'node:crypto'
import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { GiB } from '../../base/units.ts'
import { changeInstance, changeInstanceAs } from '../change-instance.ts'
import { findInstance } from '../find-instance.ts'
import { abilitiesAt } from '../hosts.ts'
import type { InstancePorts } from '../ports.ts'
import { type InstanceRecord, type JobTask, type SnapshotJob, startsFromVolume } from '../records.ts'
import { endLeftJob, startJob } from '../start-job.ts'
import { attachments, jobs } from '../store.ts'

export interface NewSnapshot {
  /** Of the image. */
  readonly name: string
  /** Added to those that it inherits. */
  readonly properties: Readonly<Record<string, string>>
  /** Whether what is made of it goes on where the instance was. */
  readonly withMemory: boolean
  /** Whether the image tells what the machine was as well. */
  readonly withMachine: boolean
}
export interface NewBackup {
  readonly name: string
  readonly properties: Readonly<Record<string, string>>
  /** `daily`, `weekly` or any other word: what counts for `rotation`. */
  readonly backupType: string
  /** How many backups of that type the instance keeps, the new one among them. */
  readonly rotation: number
}

/** Properties that say where an image is from, which an image made of an instance that was made of it does not inherit. */
const OWN: ReadonlySet<string> = new Set([
  ...['image_type', 'instance_uuid', 'base_image_ref', 'backup_type', 'user_id'],
  ...['block_device_mapping', 'bdm_v2', 'root_device_name'],
  // what a volume knows of its image beside its properties
  ...['image_id', 'image_name', 'size', 'min_disk', 'min_ram', 'checksum', 'container_format', 'disk_format'],
])
const isOwn = (name: string): boolean => OWN.has(name) || name.startsWith('imprint_')

/**
 * `createImage`: an image of the disk as it is at one moment, while the guest goes on. Answers when it is begun; then in the background.
 * @returns id of the image, which is `queued`
 * @throws ServiceError `not-found`, `denied`, `conflict`; `over-quota` and others of the image
 */
export const createSnapshot = (ports: InstancePorts, caller: Caller, id: string, wanted: NewSnapshot): Promise<string> =>
  beginSnapshot(ports, caller, id, 'image_snapshot', {
    ...wanted,
    image: { image_type: 'snapshot' },
    backup: null,
    cloneId: null,
  })

/** `createBackup`: a snapshot after which those of its type beyond `rotation` are deleted, the oldest first. */
export const createBackup = (ports: InstancePorts, caller: Caller, id: string, wanted: NewBackup): Promise<string> =>
  beginSnapshot(ports, caller, id, 'image_backup', {
    ...wanted,
    image: { image_type: 'backup', backup_type: wanted.backupType },
    withMemory: false,
    withMachine: false,
    backup: { type: wanted.backupType, rotation: wanted.rotation },
    cloneId: null,
  })

interface Wanted extends NewSnapshot, Pick<SnapshotJob, 'backup' | 'cloneId'> {
  readonly image: Readonly<Record<string, string>>
}

/** The job is noted before the image is begun, so that whatever a kill leaves is known by it. */
export async function beginSnapshot(
  ports: InstancePorts,
  caller: Caller,
  id: string,
  task: JobTask,
  wanted: Wanted,
): Promise<string> {
  const there = await findInstance(ports.catalog.documents, caller, id, 'snapshot')
  void abilitiesAt(ports, there)
  await endLeftJob(ports, there.id)
  const imageId = randomUUID()
  const { withMemory, backup, cloneId } = wanted
  const withMachine = wanted.withMachine || withMemory
  const instance = await changeInstanceAs(ports, caller, id, 'snapshot', async (found, documents) => {
    if (backup && startsFromVolume(found)) {
      throw new ServiceError(
        'invalid-request',
        'Backup is not supported for volume-backed instances: make snapshots of its volumes',
      )
    }
    if (withMemory && found.vmState === 'stopped') {
      throw new ServiceError('conflict', `Instance ${id} is off and has no memory to keep: make a snapshot without memory`)
    }
    const rest = { withMemory, withMachine, backup, cloneId, volumes: [], sealed: null, isSaved: false }
    await jobs.put(documents, found.id, { kind: 'snapshot', imageId, imageName: wanted.name, ...rest })
    return { taskState: task }
  })
  failpoint('instance:snapshot-asked')
  try {
    const hasVolumes = startsFromVolume(instance) || withMachine
    const volumeBytes = hasVolumes ? await bytesOfVolumes(ports, caller, instance.id) : 0
    const rootBytes = startsFromVolume(instance) ? 0 : instance.rootBytes
    await ports.snapshots.begin(caller, {
      id: imageId,
      name: wanted.name,
      bytes: rootBytes + (withMachine ? volumeBytes : 0) + (withMemory ? instance.flavor.ramMiB * 2 ** 20 : 0),
      minDisk: Math.ceil(rootBytes / GiB),
      minRam: 0,
      properties: { ...inherited(instance), ...wanted.properties, ...wanted.image, ...originOf(instance) },
    })
  } catch (error) {
    await changeInstance(ports, instance.id, async ({ taskState }, documents) => {
      ports.progress.forget(instance.id)
      await jobs.delete(documents, instance.id)
      return taskState === 'deleting' ? null : { taskState: null }
    })
    throw error
  }
  failpoint('instance:snapshot-begun')
  await assertStillWanted(ports, instance.id, imageId)
  await startJob(ports, instance)
  return imageId
}

/** Of all its volumes, of which snapshots will be taken. @throws ServiceError where they cannot be */
async function bytesOfVolumes({ catalog, volumes }: InstancePorts, caller: Caller, id: string): Promise<number> {
  const attached = await attachments.ofInstance(catalog.documents, id)
  await volumes.checkSnapshots(
    caller,
    attached.map(({ volumeId }) => volumeId),
  )
  const sizes = await Promise.all(attached.map(({ volumeId }) => volumes.show(volumeId, id)))
  return sizes.reduce((sum, { bytes }) => sum + bytes, 0)
}

/** Who ended the job, or deleted the instance, before there was an image, knew of none to give up. */
async function assertStillWanted({ catalog, snapshots }: InstancePorts, id: string, imageId: string): Promise<void> {
  const job = await jobs.get(catalog.documents, id)
  if (job?.kind === 'snapshot' && job.imageId === imageId) return
  await snapshots.giveUp(imageId)
  throw new ServiceError('conflict', `the snapshot of instance ${id} was ended before it had begun`)
}

const inherited = ({ imageProperties }: InstanceRecord) =>
  Object.fromEntries(Object.entries(imageProperties).filter(([name]) => !isOwn(name)))

/** In Nova's words. */
const originOf = ({ id, imageId, userId }: InstanceRecord) => ({ instance_uuid: id, base_image_ref: imageId, user_id: userId })
