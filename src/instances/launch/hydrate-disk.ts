import { failpoint } from '../../base/failpoint.ts'
import { changeInstance } from '../change-instance.ts'
import type { JobReport } from '../job-progress.ts'
import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord } from '../records.ts'
import { ROOT } from './launch.ts'
import { endMove } from './move-disk.ts'

/** What was copied before a kill is not copied again. */
export async function hydrateDisk(
  ports: InstancePorts,
  instance: InstanceRecord,
  signal: AbortSignal,
  report: JobReport,
): Promise<void> {
  const { id, leaseId } = await endMove(ports, instance)
  await ports.hypervisor.hydrate(id, ROOT, { signal, onProgress: report })
  failpoint('instance:hydrated')
  await changeInstance(ports, id, () => ({ leaseId: null }))
  if (leaseId !== null) await ports.images.release(leaseId)
}
