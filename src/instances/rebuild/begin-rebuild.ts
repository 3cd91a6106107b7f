import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { changeInstanceAs } from '../change-instance.ts'
import { findInstance } from '../find-instance.ts'
import { listFlavors } from '../flavors/flavors.ts'
import { abilitiesAt } from '../hosts.ts'
import { assertFits, rootBytesOf } from '../launch/fit.ts'
import { hardwareFrom } from '../launch/hardware.ts'
import { assertRoomToGrow } from '../launch/host-room.ts'
import { asRequested, assertUserData } from '../launch/requested.ts'
import { sha512Crypt } from '../launch/sha512-crypt.ts'
import { assertMetadata, assertSameForwards, withForwards } from '../metadata.ts'
import type { BootImage, InstancePorts } from '../ports.ts'
import { type InstanceRecord, type RebuildJob, startsFromVolume } from '../records.ts'
import { assertMemoryIn } from '../snapshots/machine-parts.ts'
import { endLeftJob, startJob } from '../start-job.ts'
import { jobs, keypairs } from '../store.ts'
import { assertOwnDisk, withoutMapping } from '../volumes/image-mapping.ts'
import { assertSameImage, revertsFrom } from './volumes-of-rebuild.ts'

type Renamed = Pick<InstanceRecord, 'name' | 'description' | 'metadata' | 'accessIPv4' | 'accessIPv6' | 'diskConfig'>

export interface RebuildWish extends Partial<Renamed> {
  readonly imageId: string
  /** Null: none any more; absent: as it is. */
  readonly keyName?: string | null
  /** Base64; null: none any more; absent: as it is. */
  readonly userData?: string | null
  /** Absent: none. */
  readonly adminPassword?: string
}

/**
 * `rebuild`: the operating system anew from an image, the same one or another. What was on the disk is gone; id, address, ports, flavor and
 * what is not named stay. Answers when it is begun.
 * @throws ServiceError `not-found`, `denied`, `conflict`; `invalid-request` for an image that does not fit; `unavailable` where the host has
 *   no room for a larger disk
 */
export function rebuildInstance(ports: InstancePorts, caller: Caller, id: string, wish: RebuildWish): Promise<InstanceRecord> {
  return begin(ports, caller, id, wish, { withMemory: false })
}

/**
 * Puts an instance back to a snapshot of its own: what was written since is gone.
 * @param withMemory whether it goes on in the middle of what it did then, where the snapshot has its memory
 * @throws ServiceError as `rebuildInstance`; `invalid-request` for an image that is no snapshot of this instance
 */
export function restoreInstance(
  ports: InstancePorts,
  caller: Caller,
  id: string,
  { imageId, withMemory }: { readonly imageId: string; readonly withMemory: boolean },
): Promise<InstanceRecord> {
  return begin(ports, caller, id, { imageId }, { withMemory, isOwn: true })
}

async function begin(
  ports: InstancePorts,
  caller: Caller,
  id: string,
  wish: RebuildWish,
  how: { readonly withMemory: boolean; readonly isOwn?: boolean },
): Promise<InstanceRecord> {
  const { documents } = ports.catalog
  const found = await findInstance(documents, caller, id, 'rebuild')
  await endLeftJob(ports, found.id)
  const image = await asRequested(() => ports.images.show(caller, wish.imageId))
  if (how.isOwn && image.properties.instance_uuid !== found.id) {
    throw new ServiceError(
      'invalid-request',
      `image ${image.id} is no snapshot of instance ${found.id}: to start anew from it, rebuild`,
    )
  }
  if (!startsFromVolume(found)) assertOwnDisk(image)
  else if (!how.isOwn) await assertSameImage(ports, found, image.id)
  const reverts = how.isOwn ? await revertsFrom(ports, caller, found, image) : []
  const becomes = await becomesOf(ports, caller, found, image, wish)
  if (wish.userData) assertUserData(wish.userData)
  if (how.withMemory) await assertMemoryIn(ports, caller, image.id) // refused now rather than later
  const needsParts = how.withMemory || reverts.some(({ to }) => to.kind === 'part')
  const seed = {
    ...(wish.userData === undefined ? {} : { userData: wish.userData }),
    passwordHash: wish.adminPassword === undefined ? null : await sha512Crypt(wish.adminPassword),
    resumesFrom: how.withMemory ? { imageId: image.id, leaseId: null } : null,
  }
  const promisableBytes = await ports.disk.promisable()
  const instance = await changeInstanceAs(ports, caller, id, 'rebuild', async ({ vmState, rootBytes }, writer) => {
    await assertRoomToGrow(ports, writer, promisableBytes, becomes.rootBytes - rootBytes)
    const job: RebuildJob = {
      kind: 'rebuild',
      seed,
      becomes,
      wasStopped: vmState === 'stopped',
      leaseId: null,
      reverts,
      partsFrom: needsParts ? { imageId: image.id, leaseId: null } : null,
      isCleared: false,
    }
    await jobs.put(writer, found.id, job)
    return { taskState: 'rebuilding' }
  })
  failpoint('instance:rebuild-asked')
  await startJob(ports, instance)
  return instance
}

async function becomesOf(
  ports: InstancePorts,
  caller: Caller,
  instance: InstanceRecord,
  image: BootImage,
  { imageId: _, keyName, userData: __, adminPassword: ___, metadata, ...renamed }: RebuildWish,
): Promise<RebuildJob['becomes']> {
  const { userId, flavor, rootBytes, key } = instance
  const abilities = abilitiesAt(ports, instance)
  const { documents } = ports.catalog
  const hardware = hardwareFrom(image.properties, abilities)
  const isOnVolume = startsFromVolume(instance)
  assertFits(isOnVolume ? { ...image, diskBytes: 0, minDisk: 0 } : image, flavor, abilities, await listFlavors(ports, caller, {}))
  const kept = metadata && withForwards(metadata, instance)
  if (kept) {
    assertMetadata(kept)
    assertSameForwards(kept, instance)
  }
  const keypair = keyName ? await keypairs.get(documents, userId, keyName) : null
  if (keypair === undefined) {
    throw new ServiceError('invalid-request', `Invalid key_name provided: its user has no keypair ${JSON.stringify(keyName)}`)
  }
  return {
    imageId: isOnVolume ? '' : image.id,
    imageProperties: withoutMapping(image.properties),
    hardware,
    rootBytes: isOnVolume ? 0 : Math.max(rootBytesOf(image, flavor), flavor.diskGiB === 0 ? rootBytes : 0),
    key: keyName === undefined ? key : keypair && { name: keypair.name, publicKey: keypair.publicKey },
    ...renamed,
    ...(kept === undefined ? {} : { metadata: kept }),
  }
}
