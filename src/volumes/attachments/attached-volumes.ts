import { randomUUID } from 'node:crypto'
import { type Caller, serviceCaller } from '../../base/caller.ts'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { GiB } from '../../base/units.ts'
import { changeVolume, changeVolumeAs } from '../change-volume.ts'
import { bootFactsOf, createVolume, type NewVolume } from '../create-volume.ts'
import { deleteVolume } from '../delete-volume.ts'
import { findVolume } from '../find-volume.ts'
import { lineOf } from '../make-volume.ts'
import type { DiskAddress, VolumePorts } from '../ports.ts'
import type { Metadata, VolumeRecord } from '../records.ts'
import { deleteSnapshot } from '../snapshots/delete-snapshot.ts'
import { findSnapshot } from '../snapshots/find-snapshot.ts'
import {
  aborted,
  checkCopies,
  checkTogether,
  snapshotTogether,
  storedTogether,
  type WantedTogether,
} from '../snapshots/snapshot-together.ts'
import { snapshots, volumes } from '../store.ts'

/** What an instance must know of a volume. */
export interface AttachedVolume {
  readonly id: string
  readonly bytes: number
  readonly isBootable: boolean
  /** Of the image that it was made from. */
  readonly imageMetadata: Metadata | null
}

export type RevertTo =
  | { readonly kind: 'snapshot'; readonly snapshotId: string }
  /** Of an image that is lent: a part of it, or, null, its disk. */
  | { readonly kind: 'lent'; readonly leaseId: string; readonly part: string | null }

const service = serviceCaller('req-volume')

/**
 * Volumes as instances have them: reserved while they are being attached, in use until they are released. Each step may be taken again, so
 * that who was killed between two asks again. A volume has one holder at most.
 */
export class AttachedVolumes {
  readonly #ports: VolumePorts

  constructor(ports: VolumePorts) {
    this.#ports = ports
  }

  /**
   * `available` → `attaching`, so that nobody else takes it.
   * @throws ServiceError `not-found`, `denied`; `conflict` where it is not available; `unsupported` where it may only be read
   */
  async reserve(caller: Caller, volumeId: string, instanceId: string): Promise<AttachedVolume> {
    const volume = await changeVolumeAs(this.#ports, caller, volumeId, 'attach', (volume) => {
      assertWritable(volume)
      return { status: 'attaching', attachment: { id: randomUUID(), instanceId, device: null, at: null } }
    })
    failpoint('volume:reserved')
    return shown(volume)
  }

  /** What it would be, if the caller may give it to an instance now. @throws as `reserve` */
  async check(caller: Caller, volumeId: string): Promise<AttachedVolume> {
    const volume = await findVolume(this.#ports.catalog.documents, caller, volumeId, 'attach')
    assertWritable(volume)
    return shown(volume)
  }

  async isHeldBy(volumeId: string, instanceId: string): Promise<boolean> {
    return (await volumes.get(this.#ports.catalog.documents, volumeId))?.attachment?.instanceId === instanceId
  }

  /** What a holder has of it. @throws ServiceError `not-found` where it is not this instance's */
  async show(volumeId: string, instanceId: string): Promise<AttachedVolume> {
    const volume = await volumes.get(this.#ports.catalog.documents, volumeId)
    if (volume?.attachment?.instanceId === instanceId) return shown(volume)
    throw new ServiceError('not-found', `volume ${volumeId.slice(0, 80)} is not attached to instance ${instanceId}`)
  }

  /** Where it is to be had from now on; the address before is good no more. @throws ServiceError `not-found` */
  async address(volumeId: string, instanceId: string): Promise<DiskAddress> {
    await this.show(volumeId, instanceId)
    return this.#ports.contents.address(volumeId)
  }

  /** Settles when the machine has it open, as it has not until it has found a service that started anew. @throws ServiceError `cancelled` */
  async whenOpen(volumeId: string, signal: AbortSignal): Promise<void> {
    await Promise.race([this.#ports.contents.whenOpen(volumeId), aborted(signal)])
  }

  /** `attaching` or `detaching` → `in-use`. Of one that is, nothing changes. */
  async attached(volumeId: string, instanceId: string, device: string): Promise<void> {
    const at = this.#ports.now()
    await this.#change(volumeId, instanceId, ({ attachment, status, upload }) => {
      if (attachment.at !== null && attachment.device === device && (upload?.before ?? status) === 'in-use') return null
      return {
        ...(upload
          ? { upload: { ...upload, before: 'in-use' as const } }
          : { status: status === 'attaching' || status === 'detaching' ? ('in-use' as const) : status }),
        attachment: { ...attachment, device, at: attachment.at ?? at },
      }
    })
  }

  /** `in-use` → `detaching`. It is to be released, or it is `attached` again where it could not be. */
  async detaching(volumeId: string, instanceId: string): Promise<void> {
    await this.#change(volumeId, instanceId, ({ status }) => (status === 'in-use' ? { status: 'detaching' } : {}))
  }

  /** `available` again, and the instance's address is good no more. Of what it has not, nothing changes. */
  async released(volumeId: string, instanceId: string): Promise<void> {
    const { documents } = this.#ports.catalog
    if ((await volumes.get(documents, volumeId))?.attachment?.instanceId !== instanceId) return
    await this.#ports.contents.address(volumeId) // told to nobody
    failpoint('volume:cut-off')
    await this.#change(volumeId, instanceId, ({ status, upload }) => ({
      attachment: null,
      ...(upload ? { upload: { ...upload, before: 'available' as const } } : {}),
      ...(['attaching', 'in-use', 'detaching'].includes(status) ? { status: 'available' as const } : {}),
    }))
  }

  /** What a volume that is made of it would be, if the caller may make one. @throws ServiceError `not-found`, `denied`, `conflict` */
  async checkSnapshot(caller: Caller, snapshotId: string): Promise<AttachedVolume & { readonly volumeId: string }> {
    const { documents } = this.#ports.catalog
    const { volumeId, sizeGiB } = await findSnapshot(documents, caller, snapshotId, 'use')
    return { id: snapshotId, volumeId, bytes: sizeGiB * GiB, ...bootFactsOf(await volumes.get(documents, volumeId)) }
  }

  /** Whether snapshots of them could be taken now. @throws ServiceError as `snapshot` */
  checkSnapshots(caller: Caller, volumeIds: readonly string[]): Promise<void> {
    return checkTogether(this.#ports, caller, volumeIds)
  }

  /** Whether volumes of the caller could be made of such snapshots, while these are there. @throws ServiceError `not-found`, `denied`; `over-quota`, `no-space` */
  checkCopies(caller: Caller, volumeIds: readonly string[]): Promise<void> {
    return checkCopies(this.#ports, caller, volumeIds)
  }

  /**
   * All of them at one moment, as nobody writes to any now, or none; they are stored in the background.
   * @throws ServiceError `not-found`, `denied`, `conflict`; `over-quota`; `no-space`, `unavailable`
   */
  snapshot(caller: Caller, wanted: readonly WantedTogether[]): Promise<void> {
    return snapshotTogether(this.#ports, caller, wanted)
  }

  /** Settles when they are stored. @throws ServiceError `conflict`, saying what became of one that is not; `cancelled` */
  stored(wanted: readonly Pick<WantedTogether, 'id' | 'volumeId'>[], signal: AbortSignal): Promise<void> {
    return storedTogether(this.#ports, wanted, signal)
  }

  /** Whatever has become of it. Of one that is gone, nothing is left to do. */
  async deleteSnapshot(snapshotId: string): Promise<void> {
    const snapshot = await snapshots.get(this.#ports.catalog.documents, snapshotId)
    if (!snapshot) return
    await this.#ports.tasks.idleAt(snapshot.volumeId) // it may be being stored
    await deleteSnapshot(this.#ports, service, snapshotId, { force: true }).catch((error: unknown) => {
      if (!isServiceError(error, 'not-found')) throw error
    })
  }

  /**
   * What the volume is to be when the instance has let go of it: what it was when the snapshot was taken, or what is in an image.
   * @throws ServiceError `not-found`, `denied`, `conflict` of the volume and the snapshot; `invalid-request` for a snapshot of another volume
   */
  async prepareRevert(caller: Caller, volumeId: string, instanceId: string, to: RevertTo): Promise<void> {
    await this.show(volumeId, instanceId)
    if (to.kind === 'lent') return this.#ports.contents.prepareRevert(volumeId, { id: to.leaseId, part: to.part })
    const snapshot = await findSnapshot(this.#ports.catalog.documents, caller, to.snapshotId, 'use')
    if (snapshot.volumeId !== volumeId) {
      throw new ServiceError('invalid-request', `snapshot ${snapshot.id} is of another volume than ${volumeId}`)
    }
    await this.#ports.contents.prepareRevert(volumeId, { id: snapshot.id, part: null })
  }

  /** It is to be nothing else. */
  cancelRevert(volumeId: string): Promise<void> {
    return this.#ports.contents.cancelRevert(volumeId)
  }

  /** It is what was prepared; snapshots of it that are being stored are stored before. @throws ServiceError `not-found`, `no-space`, `unavailable` */
  async revert(volumeId: string, instanceId: string): Promise<void> {
    await this.show(volumeId, instanceId)
    const { contents, seals, tasks } = this.#ports
    await seals.take(volumeId, async () => {
      await tasks.idleAt(volumeId)
      await contents.revert(volumeId)
    })
  }

  /** One that an instance was made with, released before: it goes. Of one that is gone, nothing is left to do. */
  async delete(volumeId: string): Promise<void> {
    const volume = await volumes.get(this.#ports.catalog.documents, volumeId)
    if (volume && volume.status !== 'deleting') await deleteVolume(this.#ports, service, volumeId, { cascade: true, force: true })
  }

  /** Makes a volume for an instance, unless it is there, and settles when it is available. @throws as `createVolume`; its fault where it could not be made */
  async create(caller: Caller, id: string, { from, sizeGiB }: Pick<NewVolume, 'from' | 'sizeGiB'>): Promise<void> {
    const { documents } = this.#ports.catalog
    const wanted = { id, name: null, description: null, metadata: {}, from, sizeGiB }
    const made = (await volumes.get(documents, id)) ?? (await createVolume(this.#ports, caller, wanted))
    await this.#ports.tasks.idleAt(lineOf(id, made.source))
    const volume = await volumes.get(documents, id)
    if (volume && !['creating', 'error', 'deleting'].includes(volume.status)) return
    throw new ServiceError('conflict', `volume ${id} is ${volume?.status ?? 'gone'}: ${volume?.fault ?? 'try again'}`, { id })
  }

  /** What instances are said to have. */
  async held(): Promise<readonly { readonly volumeId: string; readonly instanceId: string }[]> {
    const all = await volumes.list(this.#ports.catalog.documents)
    return all.flatMap(({ id, attachment }) => (attachment ? [{ volumeId: id, instanceId: attachment.instanceId }] : []))
  }

  /** Where it is this instance's; else nothing. */
  async #change(volumeId: string, instanceId: string, change: (volume: Held) => Partial<VolumeRecord> | null): Promise<void> {
    await changeVolume(this.#ports, volumeId, (volume) => {
      const { attachment } = volume
      return attachment?.instanceId === instanceId ? change({ ...volume, attachment }) : null
    })
  }
}
type Held = VolumeRecord & { readonly attachment: NonNullable<VolumeRecord['attachment']> }

/** @throws ServiceError `unsupported` */
function assertWritable({ id, isReadOnly }: VolumeRecord): void {
  if (!isReadOnly) return
  const message = `Invalid volume: volume ${id} is read-only, and instances here write to what they have: set it read-write first`
  throw new ServiceError('unsupported', message, { id })
}

const shown = ({ id, sizeGiB, isBootable, imageMetadata }: VolumeRecord): AttachedVolume => ({
  id,
  bytes: sizeGiB * GiB,
  isBootable,
  imageMetadata,
})
