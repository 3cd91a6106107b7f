import { randomBytes, randomUUID } from 'node:crypto'
import type { Caller } from '../../base/caller.ts'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import type { DocumentReader } from '../../store/catalog/catalog.ts'
import { beginAction } from '../actions/actions.ts'
import { hostsThatAreUp, placeNamed } from '../hosts.ts'
import type { PortForward } from '../hypervisor/hypervisor.ts'
import type { InstancePorts, NamedHost } from '../ports.ts'
import { countWithinQuota, quotaOf } from '../quotas.ts'
import type { InstanceNetwork, InstanceRecord } from '../records.ts'
import { attachments, forwardedPorts, instances, type Seed, seeds } from '../store.ts'
import { attachmentsFor, type WantedDisk } from '../volumes/new-disks.ts'
import { chooseHostPorts, FORWARDS_KEY, forwardsFrom, forwardsText } from './forwards.ts'
import { placesWithinHosts } from './host-room.ts'
import { hostnameFrom } from './hostname.ts'

/** Ports are drawn from thousands: twice the same is rare already. */
const PORT_TRIES = 8

/** What is asked of several instances at once, and told to each. */
export interface Beginning extends Seed, Pick<InstanceRecord, 'name' | 'metadata'> {
  readonly network: 'auto' | 'none'
  /** That it is made with; absent: none. */
  readonly volumes?: readonly WantedDisk[]
  /** Those that may have them, and are up; absent: all that are. */
  readonly hosts?: readonly NamedHost[]
  /** Of the network card; absent: one of its own for each. */
  readonly mac?: string
  /** As many as the quota has room for, from `least` to `most`. */
  readonly least: number
  readonly most: number
}

/**
 * Records as many as quota and host have room for, with all that is theirs alone. What there is room for is asked twice: first for
 * how many ports are looked for, then in the transaction, where nobody else can take it.
 */
export const recordInstances = (
  ports: InstancePorts,
  caller: Caller,
  common: Common,
  wanted: Beginning,
): Promise<readonly InstanceRecord[]> => withFreePorts(wanted, () => record(ports, caller, common, wanted))

async function record(
  ports: InstancePorts,
  caller: Caller,
  common: Common,
  wanted: Beginning,
): Promise<readonly InstanceRecord[]> {
  const { projectId, flavor, rootBytes } = common
  const { least } = wanted
  const [quota, promisable] = [await quotaOf(ports, projectId), await ports.disk.promisable()]
  const each = { instances: 1, cores: flavor.vcpus, ram: flavor.ramMiB }
  const placesFor = async (documents: DocumentReader, most: number) => {
    const withinQuota = await countWithinQuota(documents, projectId, quota, each, { least, most })
    const room = { hosts: wanted.hosts ?? hostsThatAreUp(ports), promisableBytes: promisable }
    return placesWithinHosts(ports, documents, { least, most: withinQuota }, { ramMiB: flavor.ramMiB, rootBytes }, room)
  }
  const most = (await placesFor(ports.catalog.documents, wanted.most)).length
  const forwards = await forwardsOf(ports, wanted, most)
  return ports.catalog.write(async ({ documents }) => {
    const cards = await cardsFor(documents, ports.settings.bridge, wanted.mac)
    const records = (await placesFor(documents, most)).map((host, index) => ({
      ...recordOf(common, wanted, index, cards(forwards[index] ?? []), ports.now()),
      host: placeNamed(ports, host.name),
    }))
    for (const record of records) {
      await instances.put(documents, record)
      await seeds.put(documents, record.id, wanted)
      for (const disk of attachmentsFor(record, wanted.volumes ?? [])) await attachments.put(documents, disk)
      await beginAction(documents, caller, record, 'create', record.createdAt)
      for (const forward of record.network?.forwards ?? []) await forwardedPorts.take(documents, forward, record.id)
    }
    return records
  })
}

/** Another request may have taken a port since it was found free: others are drawn then. One that was asked for is refused. */
async function withFreePorts<T>({ metadata }: Beginning, work: () => Promise<T>): Promise<T> {
  const draws = forwardsFrom(metadata).some(({ hostPort }) => hostPort === 0)
  for (let tries = 1; ; tries += 1) {
    try {
      return await work()
    } catch (error) {
      if (!isServiceError(error, 'conflict') || error.details.port === undefined || !draws || tries === PORT_TRIES) throw error
    }
  }
}

/** What they have in common. */
export type Common = Omit<
  InstanceRecord,
  'id' | 'name' | 'hostname' | 'metadata' | 'network' | 'launchIndex' | 'createdAt' | 'updatedAt'
>

function recordOf(common: Common, wanted: Beginning, launchIndex: number, card: InstanceNetwork, at: number): InstanceRecord {
  const { forwards } = card
  const id = randomUUID()
  const name = wanted.most > 1 ? `${wanted.name}-${launchIndex + 1}` : wanted.name
  return {
    ...common,
    id,
    name,
    hostname: hostnameFrom(name, id),
    metadata: forwards.length > 0 ? { ...wanted.metadata, [FORWARDS_KEY]: forwardsText(forwards) } : wanted.metadata,
    network: wanted.network === 'none' ? null : card,
    launchIndex,
    createdAt: at,
    updatedAt: at,
  }
}

/** For each instance its forwards. */
async function forwardsOf(
  ports: InstancePorts,
  { metadata, network, ...wanted }: Beginning,
  count: number,
): Promise<readonly (readonly PortForward[])[]> {
  const forwards = forwardsFrom(metadata)
  if (forwards.length === 0) return []
  if (network === 'none') throw new ServiceError('invalid-request', `${FORWARDS_KEY} needs a network: ask for networks "auto"`)
  const { bridge } = ports.settings
  if (bridge !== null) {
    throw new ServiceError(
      'invalid-request',
      `${FORWARDS_KEY}: instances here are in the bridge ${bridge}, where no ports are forwarded: leave it out, and reach them at the addresses that they have there`,
    )
  }
  if (wanted.most > 1 && forwards.some(({ hostPort }) => hostPort !== 0)) {
    throw new ServiceError(
      'invalid-request',
      `${FORWARDS_KEY}: several instances cannot share a port of the host: give 0 for any`,
    )
  }
  const taken = new Set<string>()
  const all: (readonly PortForward[])[] = []
  for (let n = 0; n < count; n += 1) all.push(await chooseHostPorts(ports, forwards, taken))
  return all
}

/**
 * @param mac of a machine whose memory knows it
 * @returns a card for each instance. In a bridge no two have one address
 * @throws ServiceError `conflict` where another instance in the bridge has it
 */
async function cardsFor(
  documents: DocumentReader,
  bridge: string | null,
  mac: string | undefined,
): Promise<(forwards: readonly PortForward[]) => InstanceNetwork> {
  if (bridge === null) return (forwards) => ({ mac: mac ?? newMac(), forwards })
  const taken = new Set((await instances.list(documents)).flatMap(({ network }) => network?.mac ?? []))
  if (mac !== undefined && taken.has(mac)) {
    const message = `an instance that goes on with this memory has the address ${mac}, which another one in the bridge ${bridge} has: delete that first, or start without memory`
    throw new ServiceError('conflict', message, { mac })
  }
  return (forwards) => {
    let own = mac ?? newMac()
    while (mac === undefined && taken.has(own)) own = newMac()
    taken.add(own)
    return { mac: own, forwards, bridge }
  }
}

/** Within OpenStack's own range, `fa:16:3e`. */
const newMac = (): string => `fa:16:3e:${(randomBytes(3).toString('hex').match(/../g) ?? []).join(':')}`
