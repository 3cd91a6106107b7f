import { randomBytes } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { failpoint } from '../base/failpoint.ts'
import { findFlavor, listFlavors } from './flavors/flavors.ts'
import { findHost, hostNameOf, hostsFit, hostsThatAreUp } from './hosts.ts'
import { assertFits, rootBytesOf } from './launch/fit.ts'
import { hardwareFrom } from './launch/hardware.ts'
import { startLaunch } from './launch/launch.ts'
import { recordInstances } from './launch/record-instances.ts'
import { asRequested, assertUserData } from './launch/requested.ts'
import { sha512Crypt } from './launch/sha512-crypt.ts'
import { assertMetadata } from './metadata.ts'
import { authorizeService } from './policy.ts'
import type { InstancePorts, NamedHost } from './ports.ts'
import type { DiskConfig, FlavorOfInstance, FlavorRecord, InstanceRecord } from './records.ts'
import { instances, keypairs } from './store.ts'
import { assertTags } from './tags.ts'
import { type Sources, sourcesOf, type WantedDisk } from './volumes/new-disks.ts'

export interface NewInstances {
  readonly name: string
  readonly description: string | null
  readonly flavorId: string
  /** '': it starts from one of the volumes. */
  readonly imageId: string
  readonly volumes: readonly WantedDisk[]
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
  /** The name of the host that shall have it, for administrators; null: any. */
  readonly host: string | null
  readonly accessIPv4: string
  readonly accessIPv6: string
  readonly diskConfig: DiskConfig
  /** As many as the quota has room for, from `least` to `most`. */
  readonly least: number
  readonly most: number
}

/** More are asked for in several requests. */
const MAX_AT_ONCE = 1000

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
  const sources = await sourcesOf(ports, caller, wanted)
  const { draft, hosts } = await draftOf(ports, caller, wanted, sources, await hostsFor(ports, caller, wanted))
  const passwordHash = wanted.adminPassword === null ? null : await sha512Crypt(wanted.adminPassword)
  const common = { ...draft, projectId, userId: caller.userId, reservationId: `r-${randomBytes(4).toString('hex')}` }
  const asked = { ...wanted, hosts, volumes: sources.volumes, passwordHash, resumesFrom: null }
  const made = await recordInstances(ports, caller, common, asked)
  failpoint('instance:recorded')
  for (const instance of made) startLaunch(ports, caller, instance)
  return made
}

export function authorizeCreate(caller: Caller): string {
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
  if (userData !== null) assertUserData(userData)
}

/** What all instances of the request have in common. @param allowed those that may have them @returns `hosts`: those that can */
async function draftOf(
  ports: InstancePorts,
  caller: Caller,
  wanted: NewInstances,
  { image }: Sources,
  allowed: readonly NamedHost[],
) {
  const { documents } = ports.catalog
  const flavor = await asRequested(() => findFlavor(documents, caller, wanted.flavorId))
  const keypair = wanted.keyName === null ? null : await keypairs.get(documents, caller.userId, wanted.keyName)
  if (keypair === undefined) {
    throw new ServiceError('invalid-request', `Invalid key_name provided: you have no keypair ${JSON.stringify(wanted.keyName)}`)
  }
  const others = await listFlavors(ports, caller, {})
  const { hosts, planned: hardware } = hostsFit(ports, allowed, (abilities) => {
    const planned = hardwareFrom(image.properties, abilities)
    assertFits(image, flavor, abilities, others)
    return planned
  })
  const draft = {
    imageId: image.id,
    imageProperties: image.properties,
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
    move: null,
    rootBytes: image.id === '' ? 0 : rootBytesOf(image, flavor),
    hardware,
    accessIPv4: wanted.accessIPv4,
    accessIPv6: wanted.accessIPv6,
    diskConfig: wanted.diskConfig,
    launchedAt: null,
  } as const satisfies Partial<InstanceRecord>
  return { draft, hosts }
}

/**
 * Those that may have it and are up. As Nova's filters `SameHostFilter` and `DifferentHostFilter`: one of those named suffices, none
 * of those named may be there.
 * @throws ServiceError `denied`; `invalid-request` where there is none
 */
async function hostsFor(
  ports: InstancePorts,
  caller: Caller,
  { host, neighbours: { sameHost, differentHost } }: Pick<NewInstances, 'host' | 'neighbours'>,
): Promise<readonly NamedHost[]> {
  if (host !== null && !caller.isAdmin) throw new ServiceError('denied', 'only administrators choose the host of an instance')
  if (host !== null && !findHost(ports, host)) {
    const names = ports.hosts.map(({ name }) => `"${name}"`).join(', ')
    throw new ServiceError('invalid-request', `Compute host ${host.slice(0, 80)} could not be found: there is none but ${names}`)
  }
  const refuse = (problem: string) => {
    const only = ports.hosts.length === 1 ? ', and this is the one host there is' : ''
    throw new ServiceError('invalid-request', `No valid host was found: ${problem}${only}`)
  }
  const placesOf = async (ids: readonly string[]) => {
    const found = await Promise.all(ids.map((id) => instances.get(ports.catalog.documents, id)))
    return new Set(found.flatMap((each) => (each ? [hostNameOf(ports, each)] : [])))
  }
  const [beside, apart] = [await placesOf(sameHost), await placesOf(differentHost)]
  if (sameHost.length > 0 && beside.size === 0) refuse('none of the instances of same_host is on this host')
  const allowed = ports.hosts.filter(
    ({ name }) => (host === null || name === host) && (sameHost.length === 0 || beside.has(name)) && !apart.has(name),
  )
  if (allowed.length === 0)
    refuse(`instance ${differentHost.join(', ') || sameHost.join(', ')} of different_host is on this host`)
  const up = new Set(hostsThatAreUp(ports))
  return allowed.filter((each) => up.has(each))
}

export function flavorOfInstance({ isPublic: _, projects: __, createdAt: ___, ...flavor }: FlavorRecord): FlavorOfInstance {
  return flavor
}
