import { failpoint } from '../../base/failpoint.ts'
import { changeInstance } from '../change-instance.ts'
import { changeJob } from '../change-job.ts'
import { hostAt, hostNameOf } from '../hosts.ts'
import type { Migrated } from '../hypervisor/machine-migration.ts'
import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord, MigrateJob } from '../records.ts'
import { jobs } from '../store.ts'
import { isAtTarget } from './whereabouts.ts'

/**
 * The machine goes to the other host, and then the record says so. Where nobody knows how far it came, after a kill or when the way to a host
 * broke, the hosts are asked first, if the target was told that it comes, so the record is never ahead of the machine.
 * @param ends.signal nobody goes on with it now: what is not known stays so
 * @param ends.cut it shall stay where it is, if it has not gone
 * @throws what kept it from going: it is where it was
 */
export async function migrate(
  ports: InstancePorts,
  { id }: InstanceRecord,
  job: MigrateJob,
  { signal, cut }: { readonly signal: AbortSignal; readonly cut: AbortSignal },
): Promise<void> {
  if (job.hasBegun && (await isAtTarget(ports, id, job, signal))) return recordMoved(ports, id, job, null)
  cut.throwIfAborted()
  let moved: Migrated | null = null
  try {
    moved = await move(ports, id, job, AbortSignal.any([signal, cut]))
  } catch (error) {
    if (signal.aborted || !(await hasBegun(ports, id)) || !(await isAtTarget(ports, id, job, signal))) throw error
  }
  failpoint('instance:migrate-moved')
  await recordMoved(ports, id, job, moved)
}

async function hasBegun({ catalog }: Pick<InstancePorts, 'catalog'>, id: string): Promise<boolean> {
  const job = await jobs.get(catalog.documents, id)
  return job?.kind === 'migrate' && job.hasBegun
}

/** What its disks lie on, and its volumes, both hosts read at the same addresses. */
async function move(ports: InstancePorts, id: string, { from, to }: MigrateJob, signal: AbortSignal): Promise<Migrated> {
  const [source, target] = [hostAt(ports, from).machines, hostAt(ports, to).machines]
  await target.withdraw(id) // of an attempt that was killed before it was noted
  const expected = await target.receive(await source.specOf(id))
  await changeJob(ports, id, 'migrate', () => ({ hasBegun: true }))
  failpoint('instance:migrate-expected')
  return source.migrateTo(id, expected, { signal })
}

async function recordMoved(ports: InstancePorts, id: string, { from, to }: MigrateJob, moved: Migrated | null): Promise<void> {
  const migration = {
    from: hostNameOf(ports, { host: from }),
    to: hostNameOf(ports, { host: to }),
    downtimeMs: moved === null ? null : Math.round(moved.downtimeMs),
    bytes: moved === null ? null : moved.layerBytes + moved.memoryBytes,
    at: ports.now(),
  }
  await changeInstance(ports, id, () => ({ host: to, migration, fault: null }))
  failpoint('instance:migrate-recorded')
}
