import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import type { DocumentReader } from '../../store/catalog/catalog.ts'
import { changeInstanceAs } from '../change-instance.ts'
import { findInstance } from '../find-instance.ts'
import { findHost, hostNameOf, hostsThatAreUp, placeNamed, placeOf } from '../hosts.ts'
import { placesWithinHosts } from '../launch/host-room.ts'
import type { InstancePorts, NamedHost } from '../ports.ts'
import type { InstanceRecord } from '../records.ts'
import { endLeftJob, startJob } from '../start-job.ts'
import { jobs } from '../store.ts'

/**
 * Moves an instance to another host while its guest goes on. Answers when it is begun.
 * @param to the name of the host; null: the one with the most memory left
 * @throws ServiceError `not-found`, `denied`, `conflict`; `invalid-request` for a host that there is none of, or the one where it is;
 *   `unavailable` where that host is away or has no room
 */
export async function migrateInstance(
  ports: InstancePorts,
  caller: Caller,
  id: string,
  { to }: { readonly to: string | null },
): Promise<void> {
  const found = await findInstance(ports.catalog.documents, caller, id, 'migrate')
  await endLeftJob(ports, found.id)
  const candidates = candidatesFor(ports, found, to)
  const instance = await changeInstanceAs(ports, caller, id, 'migrate', async (now, writer) => {
    const host = await roomiest(ports, writer, now, candidates)
    await jobs.put(writer, now.id, { kind: 'migrate', from: placeOf(now), to: placeNamed(ports, host.name), hasBegun: false })
    return { taskState: 'migrating' }
  })
  failpoint('instance:migrate-asked')
  await startJob(ports, instance)
}

function candidatesFor(ports: InstancePorts, instance: InstanceRecord, to: string | null): readonly NamedHost[] {
  const here = hostNameOf(ports, instance)
  const refuse = (problem: string): never => {
    throw new ServiceError('invalid-request', problem)
  }
  const names = ports.hosts.map(({ name }) => `"${name}"`).join(', ')
  if (to !== null && !findHost(ports, to)) {
    refuse(`Compute host ${to.slice(0, 80)} could not be found: there is none but ${names}`)
  }
  if (to === here) refuse(`Unable to migrate instance ${instance.id} to current host ${here}: name another one`)
  const others = ports.hosts.filter(({ name }) => name !== here && (to === null || name === to))
  if (others.length === 0) refuse(`No valid host was found: there is none but ${names}, where instance ${instance.id} is`)
  const up = hostsThatAreUp(ports).filter((host) => others.includes(host))
  if (up.length > 0) return up
  throw new ServiceError('unavailable', `No valid host was found: ${to ?? 'no other host'} is away; see whether its agent runs`)
}

/** What its guest may write is promised already. @throws ServiceError `unavailable` where none has room */
async function roomiest(
  ports: InstancePorts,
  documents: DocumentReader,
  { flavor }: InstanceRecord,
  hosts: readonly NamedHost[],
): Promise<NamedHost> {
  const each = { ramMiB: flavor.ramMiB, rootBytes: 0 }
  const room = { hosts, promisableBytes: Number.POSITIVE_INFINITY }
  const [place] = await placesWithinHosts(ports, documents, { least: 1, most: 1 }, each, room)
  if (place) return place
  throw new ServiceError('unavailable', 'No valid host was found: none has room')
}
