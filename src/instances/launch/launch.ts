import { type Caller, serviceCaller } from '../../base/caller.ts'
import { failpoint } from '../../base/failpoint.ts'
import { MiB } from '../../base/units.ts'
import { changeInstance } from '../change-instance.ts'
import { faultFrom, isForOwner } from '../faults.ts'
import { isHostMissed } from '../hosts.ts'
import type { DiskAddress, MachineDisk, MachineSpec } from '../hypervisor/hypervisor.ts'
import type { InstancePorts } from '../ports.ts'
import { type InstanceRecord, type ResumeSource, startsFromVolume } from '../records.ts'
import { lentMemory } from '../snapshots/machine-parts.ts'
import { type Seed, seeds } from '../store.ts'
import { forgetVolumes, recordAllAttached, volumeDisks } from '../volumes/plug.ts'
import { seedFor } from './seed.ts'

/** Name of the disk that an instance has of its own. */
export const ROOT = 'root'
/** What needs a lease, in the words by which it is found again. */
export const HOLDER_KIND = 'instance'
export const holderOf = (instanceId: string): string => `${HOLDER_KIND} ${instanceId}`

/** @param caller who may start machines from the image */
export const startLaunch = (ports: InstancePorts, caller: Caller, { id, projectId }: InstanceRecord): void =>
  ports.tasks.start(id, (signal) => launch(ports, caller, id, signal), { pool: 'launches', owner: projectId })

/**
 * `building` → `active`: disk, machine, record. Cut short it is left as it stands, for whoever cut it: a deletion comes next, or
 * the next start takes it up (recover.ts), or its host when that is back. Failed, nothing is left but the record, which says why.
 */
async function launch(ports: InstancePorts, caller: Caller, id: string, signal: AbortSignal): Promise<void> {
  const instance = await changeInstance(ports, id, ({ taskState }) =>
    taskState === 'scheduling' ? { taskState: 'spawning' } : null,
  )
  if (instance?.vmState !== 'building' || instance.taskState !== 'spawning') return
  try {
    const base = startsFromVolume(instance) ? null : await borrow(ports, caller, instance)
    await ports.hypervisor.launch(await machineOf(ports, instance, base), signal)
  } catch (error) {
    if (!signal.aborted && !(await isHostMissed(ports, id, error))) await giveUp(ports, id, error)
    return
  }
  failpoint('instance:launched')
  await recordLaunched(ports, id)
}

/** A disk that was lent before, to a launch that was cut short, is lent on. */
async function borrow({ images, ...ports }: InstancePorts, caller: Caller, instance: InstanceRecord): Promise<DiskAddress> {
  if (instance.leaseId !== null) return images.readdress(instance.leaseId)
  const { leaseId, address } = await images.lend(caller, instance.imageId, holderOf(instance.id))
  failpoint('instance:lent')
  await changeInstance(ports, instance.id, () => ({ leaseId }))
  failpoint('instance:leased')
  return address
}

/** @param base of its own root disk; null: it starts from a volume */
export async function machineOf(ports: InstancePorts, instance: InstanceRecord, base: DiskAddress | null): Promise<MachineSpec> {
  const seed = await seeds.get(ports.catalog.documents, instance.id)
  const disks = [...rootDisks(instance, base ? { base } : {}), ...(await volumeDisks(ports, instance))]
  if (seed.resumesFrom === null) return { ...plannedMachine(ports, instance, disks), seed: seedFor(instance, seed) }
  const { imageId, leaseId } = await borrowMemory(ports, instance, seed, seed.resumesFrom)
  return { ...plannedMachine(ports, instance, disks), memory: await lentMemory(ports, imageId, leaseId) }
}

/** None where it starts from a volume. */
export const rootDisks = (instance: InstanceRecord, where: Pick<MachineDisk, 'base'>): readonly MachineDisk[] =>
  startsFromVolume(instance) ? [] : [{ name: ROOT, bytes: instance.rootBytes, serial: instance.id.slice(0, 20), ...where }]

/** Without what it starts with. @param disks in order of boot */
export const plannedMachine = (
  { settings }: Pick<InstancePorts, 'settings'>,
  { id, name, flavor, hardware, network }: InstanceRecord,
  disks: readonly MachineDisk[],
): MachineSpec => ({
  id,
  name,
  cpus: flavor.vcpus,
  memoryBytes: flavor.ramMiB * MiB,
  hardware,
  disks,
  networks: network ? [{ ...network, isIsolated: network.bridge === undefined && settings.isolateGuests }] : [],
})

/** It is held until the machine runs, whatever becomes of its image. */
async function borrowMemory(
  { catalog, images }: InstancePorts,
  { id, projectId, userId }: InstanceRecord,
  seed: Seed,
  { imageId, leaseId }: ResumeSource,
): Promise<ResumeSource & { readonly leaseId: string }> {
  if (leaseId !== null) return { imageId, leaseId }
  const caller: Caller = { ...serviceCaller('req-launch'), projectId, userId }
  const lent = await images.lend(caller, imageId, holderOf(id), { withParts: true })
  failpoint('instance:memory-lent')
  const resumesFrom = { imageId, leaseId: lent.leaseId }
  await catalog.write(({ documents }) => seeds.put(documents, id, { ...seed, resumesFrom }))
  return resumesFrom
}

/** The machine is there. Also for one that was found after a launch of which nobody noted the end. */
export async function recordLaunched(ports: InstancePorts, id: string): Promise<void> {
  await forgetSecrets(ports, id)
  await recordAllAttached(ports, id)
  await changeInstance(ports, id, ({ taskState }) => ({
    vmState: 'active',
    taskState: taskState === 'deleting' ? taskState : null,
    power: 'running',
    launchedAt: ports.now(),
  }))
  failpoint('instance:active')
}

/** The guest has the password, and its memory: nobody else needs them any more. */
export async function forgetSecrets({ catalog, images }: InstancePorts, id: string): Promise<void> {
  const { userData, passwordHash, resumesFrom } = await seeds.get(catalog.documents, id)
  if (passwordHash === null && resumesFrom === null) return
  await catalog.write(({ documents }) => seeds.put(documents, id, { userData, passwordHash: null, resumesFrom: null }))
  if (resumesFrom?.leaseId) await images.release(resumesFrom.leaseId)
}

async function giveUp(ports: InstancePorts, id: string, error: unknown): Promise<void> {
  if (!isForOwner(error)) ports.onProblem(error)
  const before = await changeInstance(ports, id, () => null)
  if (!before) return
  await forgetVolumes(ports, id)
  await forgetSecrets(ports, id)
  // recorded before it is given back: who went on with a launch whose disk is gone would begin from another one
  await changeInstance(ports, id, ({ taskState }) => ({
    vmState: 'error',
    taskState: taskState === 'deleting' ? taskState : null,
    power: null,
    leaseId: null,
    fault: faultFrom(error, 'the machine did not start on this host', ports.now()),
  }))
  if (before.leaseId !== null) await ports.images.release(before.leaseId)
}
