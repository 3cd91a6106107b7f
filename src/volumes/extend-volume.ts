import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { failpoint } from '../base/failpoint.ts'
import { GiB } from '../base/units.ts'
import { changeVolume, changeVolumeAs } from './change-volume.ts'
import { assertSize } from './create-volume.ts'
import { faultOf } from './faults.ts'
import { assertHostHasRoom } from './host-room.ts'
import type { VolumePorts } from './ports.ts'
import { assertWithinQuota, quotaOf } from './quotas.ts'

/**
 * `os-extend`: zeros follow. What is in it learns of that by itself, or by whoever manages its file system.
 * @throws ServiceError `not-found`, `denied`, `conflict`; `invalid-request` for no more than it has; `over-quota`; `no-space`, `too-large`
 */
export async function extendVolume(ports: VolumePorts, caller: Caller, id: string, sizeGiB: number): Promise<void> {
  const { projectId } = await changeVolumeAs(ports, caller, id, 'extend', () => ({})) // whose quota it is
  const [quota, room] = [await quotaOf(ports, projectId), await ports.disk.room()]
  const volume = await changeVolumeAs(ports, caller, id, 'extend', async (volume, documents) => {
    const more = sizeGiB - volume.sizeGiB
    if (more <= 0) {
      const message = `Invalid input received: New size for extend must be greater than current size. (current: ${volume.sizeGiB}, extended: ${sizeGiB}).`
      throw new ServiceError('invalid-request', message)
    }
    assertSize(sizeGiB)
    await assertWithinQuota(documents, projectId, quota, { gigabytes: more }, sizeGiB)
    await assertHostHasRoom(ports, documents, room, more * GiB)
    return { status: 'extending', growingTo: sizeGiB }
  })
  failpoint('volume:extending')
  startExtending(ports, volume.id)
}

export function startExtending(ports: VolumePorts, id: string): void {
  ports.tasks.start(id, async (signal) => {
    const volume = await changeVolume(ports, id, () => null)
    if (volume?.status !== 'extending' || volume.growingTo === null) return
    const sizeGiB = volume.growingTo
    try {
      await ports.contents.grow(id, sizeGiB * GiB)
    } catch (error) {
      if (signal.aborted) return // the next start goes on
      ports.onProblem(error)
      await changeVolume(ports, id, ({ status }) => ({
        ...(status === 'deleting' ? {} : { status: 'error' }),
        growingTo: null,
        fault: faultOf(error, 'it could not be extended'),
      }))
      return
    }
    failpoint('volume:extended')
    await changeVolume(ports, id, ({ status }) => ({
      ...(status === 'deleting' ? {} : { status: 'available' }), // deleted by force meanwhile
      sizeGiB,
      growingTo: null,
    }))
  })
}
