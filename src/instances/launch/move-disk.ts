import { serviceCaller } from '../../base/caller.ts'
import { failpoint } from '../../base/failpoint.ts'
import { changeInstance } from '../change-instance.ts'
import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord } from '../records.ts'
import { holderOf, ROOT } from './launch.ts'

/**
 * Puts the root disk on an image that holds what it lies on now and its layers up to `through`; those are gone then. The guest goes on
 * meanwhile. Failed or cut short, the instance may lie on either, and the next start or snapshot ends it first.
 */
export async function moveDisk(ports: InstancePorts, id: string, imageId: string, through: number): Promise<void> {
  const { leaseId } = await ports.images.lend(serviceCaller('req-move'), imageId, holderOf(id))
  failpoint('instance:move-lent')
  const instance = await changeInstance(ports, id, ({ move }) => (move ? null : { move: { leaseId, through } }))
  if (instance?.move?.leaseId !== leaseId) await ports.images.release(leaseId)
  if (instance) await endMove(ports, instance)
}

/**
 * Ends a move that was begun, if there is one. To be called before anything that asks what the disk lies on.
 * @returns the instance as it is then
 */
export async function endMove(ports: InstancePorts, instance: InstanceRecord): Promise<InstanceRecord> {
  const { id, leaseId: before, move } = instance
  if (!move) return instance
  const base = await ports.images.readdress(move.leaseId)
  await ports.hypervisor.rebase(id, { [ROOT]: { base, through: move.through } })
  failpoint('instance:rebased')
  const moved = await changeInstance(ports, id, () => ({ leaseId: move.leaseId, move: null }))
  if (before !== null) await ports.images.release(before)
  return moved ?? instance
}

/** All that it may lie on. */
export const leasesOf = ({ leaseId, move }: Pick<InstanceRecord, 'leaseId' | 'move'>): readonly string[] =>
  [leaseId, move?.leaseId ?? null].filter((id) => id !== null)
