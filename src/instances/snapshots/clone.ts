import { randomBytes } from 'node:crypto'
import type { Caller } from '../../base/caller.ts'
import { failpoint } from '../../base/failpoint.ts'
import { authorizeCreate } from '../create-instances.ts'
import { findInstance } from '../find-instance.ts'
import { withFreshPorts } from '../launch/forwards.ts'
import { type Common, recordInstances } from '../launch/record-instances.ts'
import type { InstancePorts } from '../ports.ts'
import { type InstanceRecord, startsFromVolume } from '../records.ts'
import { attachments, seeds } from '../store.ts'
import { beginSnapshot } from './create-snapshot.ts'
import { forgetClone } from './start-clone.ts'

/**
 * Another instance on the disk of this one as it is now, while it goes on: of the same flavor and told the same, with an id, an address and
 * ports of its own (as many, chosen anew). It waits for the snapshot that it starts from, which is no image that stays.
 * @returns the new one, which is `building`
 * @throws ServiceError `not-found`, `denied`, `conflict`, `over-quota`, `no-space`, `unavailable`
 */
export async function cloneInstance(
  ports: InstancePorts,
  caller: Caller,
  id: string,
  { name }: { readonly name: string },
): Promise<InstanceRecord> {
  const projectId = authorizeCreate(caller)
  const { documents } = ports.catalog
  const source = await findInstance(documents, caller, id, 'snapshot')
  if (startsFromVolume(source)) {
    const attached = await attachments.ofInstance(documents, source.id)
    await ports.volumes.checkCopies(
      caller,
      attached.map(({ volumeId }) => volumeId),
    )
  }
  const { userData } = await seeds.get(documents, source.id)
  const common = { ...draftFrom(source), projectId, userId: caller.userId, reservationId: `r-${randomBytes(4).toString('hex')}` }
  const asked = {
    name,
    metadata: withFreshPorts(source.metadata),
    network: source.network ? ('auto' as const) : ('none' as const),
  }
  const [made] = await recordInstances(ports, caller, common, {
    ...asked,
    userData,
    passwordHash: null,
    resumesFrom: null,
    least: 1,
    most: 1,
  })
  if (!made) throw new Error('a clone is one instance')
  failpoint('instance:clone-recorded')
  try {
    const image = { image_type: 'snapshot' }
    const wanted = {
      name,
      properties: {},
      image,
      withMemory: false,
      withMachine: false,
      backup: null,
      cloneId: made.id,
    }
    await beginSnapshot(ports, caller, source.id, 'image_snapshot', wanted)
  } catch (error) {
    await forgetClone(ports, made.id)
    throw error
  }
  return made
}

function draftFrom(source: InstanceRecord): Omit<Common, 'projectId' | 'userId' | 'reservationId'> {
  const { imageId, imageProperties, description, flavor, key, tags, hardware, rootBytes, accessIPv4, accessIPv6, diskConfig } =
    source
  const kept = {
    imageId,
    imageProperties,
    description,
    flavor,
    key,
    tags,
    hardware,
    rootBytes,
    accessIPv4,
    accessIPv6,
    diskConfig,
  }
  const fresh = { power: null, lock: null, fault: null, leaseId: null, move: null, launchedAt: null }
  return { ...kept, ...fresh, vmState: 'building', taskState: 'block_device_mapping' }
}
