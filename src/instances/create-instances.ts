import { randomBytes, randomUUID } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import { isServiceError, ServiceError } from '../base/errors.ts'
import { failpoint } from '../base/failpoint.ts'
import type { DocumentReader } from '../store/catalog/catalog.ts'
import { beginAction } from './actions/actions.ts'
import { findFlavor, listFlavors } from './flavors/flavors.ts'
import type { PortForward } from './hypervisor/hypervisor.ts'
import { assertFits, rootBytesOf } from './launch/fit.ts'
import { chooseHostPorts, FORWARDS_KEY, forwardsFrom, forwardsText } from './launch/forwards.ts'
import { hardwareFrom } from './launch/hardware.ts'
import { countWithinHost } from './launch/host-room.ts'
import { hostnameFrom } from './launch/hostname.ts'
import { startLaunch } from './launch/launch.ts'
import { assertMetadata } from './metadata.ts'
import { authorizeService } from './policy.ts'
import type { BootImage, InstancePorts } from './ports.ts'
import { countWithinQuota, quotaOf } from './quotas.ts'
import type { DiskConfig, FlavorOfInstance, FlavorRecord, InstanceRecord } from './records.ts'
import { forwardedPorts, instances, keypairs, seeds } from './store.ts'
import { assertTags } from './tags.ts'

export interface NewInstances {
  readonly name: string
  readonly description: string | null
  readonly flavorId: string
  readonly imageId: string
  readonly keyName: string | null
  /** Base64. */
  readonly userData: string | null
  /** Of the user whom the image logs in by default; null: there is none. It is forgotten as soon as the machine has started. */
  readonly adminPassword: string | null
  readonly metadata: Readonly<Record<string, string>>
  readonly tags: readonly string[]
  readonly network: 'auto' | 'none'
  /** Instances on whose host it shall be, or shall not be. */
  readonly neighbours: { readonly sameHost: readonly string[]; readonly differentHost: readonly string[] }
  readonly accessIPv4: string
  readonly accessIPv6: string
  readonly diskConfig: DiskConfig
  /** As many as the quota has room for, from `least` to `most`. */
  readonly least: number
  readonly most: number
}

/** Of user data, encoded: Nova's limit. */
const MAX_USER_DATA_CHARACTERS = 65_535
/** More are asked for in several requests. */
const MAX_AT_ONCE = 1000
/** Ports are drawn from thousands: twice the same is rare already. */
const PORT_TRIES = 8

/**
 * `POST /servers`: records that are `building`, whose machines then start in the background. All that can be refused is refused
 * before anything is recorded.
 * @throws ServiceError `denied`; `invalid-request` for what is unknown or does not fit; `conflict`; `over-quota`; `unavailable`
 */
export async function createInstances(
  ports: InstancePorts,
  caller: Caller,
  wanted: NewInstances,
): Promise<readonly InstanceRecord[]> {
  const projectId = authorizeCreate(caller)
  assertWanted(wanted)
  const draft = await draftOf(ports, caller, wanted)
  const common = { ...draft, projectId, userId: caller.userId, reservationId: `r-${randomBytes(4).toString('hex')}` }
  const made = await withFreePorts(wanted, () => record(ports, caller, common, wanted))
  failpoint('instance:recorded')
  for (const { id } of made) startLaunch(ports, caller, id)
  return made
}

/**
 * Records as many as quota and host have room for, with all that is theirs alone. What there is room for is asked twice: first for
 * how many ports are looked for, then in the transaction, where nobody else can take it.
 */
async function record(
  ports: InstancePorts,
  caller: Caller,
  common: Common,
  wanted: NewInstances,
): Promise<readonly InstanceRecord[]> {
  const { projectId, flavor } = common
  const { least } = wanted
  const quota = await quotaOf(ports, projectId)
  const each = { instances: 1, cores: flavor.vcpus, ram: flavor.ramMiB }
  const countOf = async (documents: DocumentReader, most: number) => {
    const withinQuota = await countWithinQuota(documents, projectId, quota, each, { least, most })
    return countWithinHost(documents, ports.hypervisor.abilities, { least, most: withinQuota }, flavor.ramMiB)
  }
  const most = await countOf(ports.catalog.documents, wanted.most)
  const forwards = await forwardsOf(ports, wanted, most)
  return ports.catalog.write(async ({ documents }) => {
    const records = Array.from({ length: await countOf(documents, most) }, (_, index) =>
      recordOf(common, wanted, index, forwards[index] ?? [], ports.now()),
    )
    for (const record of records) {
      await instances.put(documents, record)
      await seeds.put(documents, record.id, wanted)
      await beginAction(documents, caller, record, 'create', record.createdAt)
      for (const forward of record.network?.forwards ?? []) await forwardedPorts.take(documents, forward, record.id)
    }
    return records
  })
}

/** Another request may have taken a port since it was found free: others are drawn then. One that was asked for is refused. */
async function withFreePorts<T>({ metadata }: NewInstances, work: () => Promise<T>): Promise<T> {
  const draws = forwardsFrom(metadata).some(({ hostPort }) => hostPort === 0)
  for (let tries = 1; ; tries += 1) {
    try {
      return await work()
    } catch (error) {
      if (!isServiceError(error, 'conflict') || error.details.port === undefined || !draws || tries === PORT_TRIES) throw error
    }
  }
}

type Common = Draft & Pick<InstanceRecord, 'projectId' | 'userId' | 'reservationId'>
type Draft = Awaited<ReturnType<typeof draftOf>>

function recordOf(
  common: Common,
  wanted: NewInstances,
  launchIndex: number,
  forwards: readonly PortForward[],
  at: number,
): InstanceRecord {
  const id = randomUUID()
  const name = wanted.most > 1 ? `${wanted.name}-${launchIndex + 1}` : wanted.name
  return {
    ...common,
    id,
    name,
    hostname: hostnameFrom(name, id),
    metadata: forwards.length > 0 ? { ...wanted.metadata, [FORWARDS_KEY]: forwardsText(forwards) } : wanted.metadata,
    network: wanted.network === 'none' ? null : { mac: newMac(), forwards },
    launchIndex,
    createdAt: at,
    updatedAt: at,
  }
}

function authorizeCreate(caller: Caller): string {
  authorizeService(caller, 'create')
  if (caller.projectId !== null) return caller.projectId
  throw new ServiceError('denied', 'an instance belongs to a project: log in with one as scope')
}

function assertWanted({ userData, metadata, tags, least, most }: NewInstances): void {
  const refuse = (problem: string) => {
    throw new ServiceError('invalid-request', problem)
  }
  if (least < 1 || most < least) refuse('min_count must be <= max_count')
  if (most > MAX_AT_ONCE) refuse(`at most ${MAX_AT_ONCE} instances are made by one request`)
  assertMetadata(metadata)
  assertTags(tags)
  if (userData === null) return
  if (userData.length > MAX_USER_DATA_CHARACTERS) {
    refuse(
      `User data too large. User data must be no larger than ${MAX_USER_DATA_CHARACTERS} bytes once base64 encoded. Your data is ${userData.length} bytes`,
    )
  }
  const base64 = userData.replace(/[\r\n]/g, '')
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(base64) || base64.length % 4 !== 0) refuse('User data needs to be valid base 64.')
}

/** What all instances of the request have in common. */
async function draftOf(ports: InstancePorts, caller: Caller, wanted: NewInstances) {
  const { documents } = ports.catalog
  const { abilities } = ports.hypervisor
  const image = await asRequested(() => ports.images.show(caller, wanted.imageId))
  const flavor = await asRequested(() => findFlavor(documents, caller, wanted.flavorId))
  const keypair = wanted.keyName === null ? null : await keypairs.get(documents, caller.userId, wanted.keyName)
  if (keypair === undefined) {
    throw new ServiceError('invalid-request', `Invalid key_name provided: you have no keypair ${JSON.stringify(wanted.keyName)}`)
  }
  await assertNeighbours(documents, wanted.neighbours)
  const hardware = hardwareFrom(image.properties, abilities)
  assertFits(image, flavor, abilities, await listFlavors(ports, caller, {}))
  return {
    imageId: image.id,
    description: wanted.description,
    flavor: flavorOfInstance(flavor),
    key: keypair && { name: keypair.name, publicKey: keypair.publicKey },
    tags: wanted.tags,
    vmState: 'building',
    taskState: 'scheduling',
    power: null,
    lock: null,
    fault: null,
    leaseId: null,
    rootBytes: rootBytesOf(image, flavor),
    hardware,
    accessIPv4: wanted.accessIPv4,
    accessIPv6: wanted.accessIPv6,
    diskConfig: wanted.diskConfig,
    launchedAt: null,
  } as const satisfies Partial<InstanceRecord>
}

/**
 * Every instance is on this host. As Nova's filters `SameHostFilter` and `DifferentHostFilter`: one of those named suffices, none
 * of those named may be there.
 */
async function assertNeighbours(
  documents: DocumentReader,
  { sameHost, differentHost }: NewInstances['neighbours'],
): Promise<void> {
  const isHere = async (id: string) => (await instances.get(documents, id)) !== undefined
  const refuse = (problem: string) => {
    throw new ServiceError('invalid-request', `No valid host was found: ${problem}, and this is the one host there is`)
  }
  const there = await Promise.all(sameHost.map(isHere))
  if (sameHost.length > 0 && !there.includes(true)) refuse('none of the instances of same_host is on this host')
  for (const id of differentHost) if (await isHere(id)) refuse(`instance ${id} of different_host is on this host`)
}

/** What a request names and there is none of makes the request wrong: Nova answers 400. */
async function asRequested<T extends FlavorRecord | BootImage>(find: () => Promise<T>): Promise<T> {
  try {
    return await find()
  } catch (cause) {
    if (!isServiceError(cause) || !['not-found', 'conflict', 'unsupported'].includes(cause.code)) throw cause
    throw new ServiceError('invalid-request', cause.message, cause.details, { cause })
  }
}

function flavorOfInstance({ isPublic: _, projects: __, createdAt: ___, ...flavor }: FlavorRecord): FlavorOfInstance {
  return flavor
}

/** For each instance its forwards. */
async function forwardsOf(
  ports: InstancePorts,
  { metadata, network, ...wanted }: NewInstances,
  count: number,
): Promise<readonly (readonly PortForward[])[]> {
  const forwards = forwardsFrom(metadata)
  if (forwards.length === 0) return []
  if (network === 'none') throw new ServiceError('invalid-request', `${FORWARDS_KEY} needs a network: ask for networks "auto"`)
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

/** Within OpenStack's own range, `fa:16:3e`. */
const newMac = (): string => `fa:16:3e:${(randomBytes(3).toString('hex').match(/../g) ?? []).join(':')}`
