import { type Caller, serviceCaller } from '../base/caller.ts'
import { GiB } from '../base/units.ts'
import { SqliteCatalog } from '../store/catalog/sqlite/sqlite-catalog.ts'
import { createInstances, type NewInstances } from './create-instances.ts'
import { Hosts } from './hypervisor/hosts/hosts.ts'
import type { HypervisorAbilities } from './hypervisor/hypervisor.ts'
import { MemoryHost, type MemoryNetwork } from './hypervisor/memory/memory-host.ts'
import { MemoryHypervisor } from './hypervisor/memory/memory-hypervisor.ts'
import { promisedToInstances } from './launch/host-room.ts'
import { MemoryImages } from './memory-images.suite.ts'
import { MemoryVolumes } from './memory-volumes.suite.ts'
import type { ImageDisks, ImageParts, InstanceSettings, MachineHost, NamedHost, QuotaName, SnapshotImages } from './ports.ts'
import type { InstanceRecord } from './records.ts'
import { type InstanceServiceOptions, openInstances } from './service.ts'
import { instances } from './store.ts'

export interface WorldOptions {
  readonly quota?: Partial<Record<QuotaName, number>>
  readonly settings?: Partial<InstanceSettings>
  readonly abilities?: Partial<HypervisorAbilities>
  readonly now?: () => number
  readonly otherHosts?: readonly string[]
  readonly pools?: InstanceServiceOptions['pools']
  /** Of the host's file system; absent: whatever is asked for. */
  readonly promisableBytes?: number
}

/** The instances of a service on machines and images in memory, and a real catalog: for tests. */
export async function instanceWorld(options: WorldOptions = {}) {
  const catalog = await SqliteCatalog.open({ path: ':memory:' })
  const network: MemoryNetwork = new Map()
  const host = new MemoryHost({ network })
  const otherHosts = new Map((options.otherHosts ?? []).map((name) => [name, new MemoryHost({ network })]))
  const images = new MemoryImages()
  const volumes = new MemoryVolumes(images)
  const problems: unknown[] = []
  const listening = new Set<number>()
  /** @param between what stands between the use cases and the adapters: a test lets calls fail, or never end, there */
  const open = (
    between: {
      readonly hypervisor?: (real: MachineHost) => MachineHost
      readonly others?: (real: MachineHost) => MachineHost
      readonly images?: ImageDisks & ImageParts
      readonly snapshots?: SnapshotImages
    } = {},
  ) => {
    const real = new MemoryHypervisor(host, options.abilities)
    const own = between.hypervisor?.(real) ?? real
    const others = [...otherHosts].map(([name, other]) => {
      const machines = new MemoryHypervisor(other, options.abilities)
      return { name, machines: between.others?.(machines) ?? machines }
    })
    return openInstances({
      catalog,
      ...machinesOf([{ name: 'host', machines: own }, ...others], catalog),
      images: between.images ?? images,
      snapshots: between.snapshots ?? images,
      volumes,
      limits: { of: async (_, name) => options.quota?.[name as QuotaName] ?? -1 },
      hostPorts: { isFree: async ({ hostPort }) => !listening.has(hostPort) },
      disk: {
        space: async () => ({ totalBytes: 100 * GiB, freeBytes: 60 * GiB }),
        promisable: async () => options.promisableBytes ?? Number.POSITIVE_INFINITY,
        promised: promisedToInstances,
      },
      lookForHostsMs: 3_600_000, // a test says when
      settings: { stopGraceMs: 50, ...options.settings },
      onProblem: (error) => problems.push(error),
      ...(options.pools ? { pools: options.pools } : {}),
      ...(options.now ? { now: options.now } : {}),
    })
  }
  let service = await open()
  const image = images.add()
  const create = (caller: Caller, wanted: Partial<NewInstances> = {}) =>
    createInstances(service.ports, caller, { ...plainInstance, imageId: image, ...wanted })
  return {
    catalog,
    host,
    /** By name; the service's own is `host`. */
    otherHosts,
    images,
    volumes,
    image,
    problems,
    /** Ports of the host on which another program listens. */
    listening,
    get ports() {
      return service.ports
    },
    create,
    /** One that runs. */
    async createOne(caller: Caller, wanted: Partial<NewInstances> = {}): Promise<InstanceRecord> {
      const [made] = await create(caller, wanted)
      await service.ports.tasks.idle()
      return (await instances.get(catalog.documents, made!.id))!
    },
    get: async (id: string) => instances.get(catalog.documents, id),
    idle: () => service.ports.tasks.idle(),
    lookForHosts: () => service.lookForHosts(),
    /** As a start after a kill would: what went on before goes no further. */
    async reopen(between: Parameters<typeof open>[0] = {}): Promise<void> {
      service = await open(between)
    },
    async close(): Promise<void> {
      await service.close()
      await catalog.close()
    },
  }
}
/** Each machine on the host that its record names. */
function machinesOf(hosts: readonly [NamedHost, ...NamedHost[]], catalog: SqliteCatalog) {
  const placeOf = async (id: string) => (await instances.get(catalog.documents, id))?.host ?? null
  return { hosts, hypervisor: new Hosts({ hosts, placeOf }) }
}

export type InstanceWorld = Awaited<ReturnType<typeof instanceWorld>>

export const plainInstance: Omit<NewInstances, 'imageId'> = {
  volumes: [],
  name: 'web',
  description: null,
  flavorId: '1',
  keyName: null,
  userData: null,
  adminPassword: null,
  metadata: {},
  tags: [],
  network: 'auto',
  host: null,
  neighbours: { sameHost: [], differentHost: [] },
  accessIPv4: '',
  accessIPv6: '',
  diskConfig: 'MANUAL',
  least: 1,
  most: 1,
}

/** A host, but for some calls. */
export const but = (real: MachineHost, methods: Partial<MachineHost>): MachineHost =>
  new Proxy(real, {
    get: (_, name) => {
      if (Object.hasOwn(methods, name)) return Reflect.get(methods, name)
      const value = Reflect.get(real, name) as unknown
      return typeof value === 'function' ? value.bind(real) : value
    },
  })

const implied = { none: [], reader: ['reader'], member: ['member', 'reader'], admin: ['admin', 'member', 'reader'] } as const

/** Somebody with a role in a project. */
export const someone = (projectId: string, role: keyof typeof implied = 'member'): Caller => ({
  ...serviceCaller('req-test'),
  userId: `user-of-${projectId}`,
  projectId,
  projectName: projectId,
  roles: new Set(implied[role]),
  isAdmin: role === 'admin',
})
