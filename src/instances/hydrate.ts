import type { Caller } from '../base/caller.ts'
import { failpoint } from '../base/failpoint.ts'
import { changeInstanceAs } from './change-instance.ts'
import { findInstance } from './find-instance.ts'
import { abilitiesAt } from './hosts.ts'
import type { InstancePorts } from './ports.ts'
import { endLeftJob, startJob } from './start-job.ts'
import { jobs } from './store.ts'

/**
 * Copies what an instance lies on into its own files, while it runs: afterwards it needs the image, and the store, no more. Answers when
 * it is begun.
 * @throws ServiceError `not-found`, `denied`, `conflict`, `unavailable`
 */
export async function hydrateInstance(ports: InstancePorts, caller: Caller, id: string): Promise<void> {
  const there = await findInstance(ports.catalog.documents, caller, id, 'hydrate')
  void abilitiesAt(ports, there)
  await endLeftJob(ports, there.id)
  const instance = await changeInstanceAs(ports, caller, id, 'hydrate', async (found, documents) => {
    await jobs.put(documents, found.id, { kind: 'hydrate' })
    return { taskState: 'hydrating' }
  })
  failpoint('instance:hydrate-asked')
  await startJob(ports, instance)
}
