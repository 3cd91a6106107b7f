import { randomUUID } from 'node:crypto'
import { type Caller, serviceCaller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { GiB } from '../base/units.ts'
import { SqliteCatalog } from '../store/catalog/sqlite/sqlite-catalog.ts'
import { createInstances, type NewInstances } from './create-instances.ts'
import type { DiskLayers } from './hypervisor/disk-layers.ts'
import type { DiskAddress, Hypervisor, HypervisorAbilities } from './hypervisor/hypervisor.ts'
import type { MachineMemory } from './hypervisor/machine-memory.ts'
import { MemoryHost } from './hypervisor/memory/memory-host.ts'
import { MemoryHypervisor } from './hypervisor/memory/memory-hypervisor.ts'
import type { BootImage, HeldLease, ImageDisks, InstanceSettings, LentDisk, QuotaName } from './ports.ts'
import type { InstanceRecord } from './records.ts'
import { openInstances } from './service.ts'
import { instances } from './store.ts'

/** Images as `src/images` lends them: whose project sees them, and leases that hold on when the image is gone. */
export class MemoryImages implements ImageDisks {
  readonly images = new Map<string, BootImage & { readonly projectId: string | null }>()
  readonly lent = new Map<string, HeldLease & { address: DiskAddress }>()

  add(changes: Partial<BootImage & { readonly projectId: string | null }> = {}): string {
    const id = randomUUID()
    const plain = { name: 'debian', diskBytes: GiB / 2, minDisk: 0, minRam: 0, properties: {}, projectId: null }
    this.images.set(id, { ...plain, ...changes, id })
    return id
  }

  async show(caller: Caller, imageId: string): Promise<BootImage> {
    const image = this.images.get(imageId)
    if (image && (caller.isAdmin || image.projectId === null || image.projectId === caller.projectId)) return image
    throw new ServiceError('not-found', `there is no image with the id "${imageId}"`)
  }

  async lend(caller: Caller, imageId: string, holder: string): Promise<LentDisk> {
    const image = await this.show(caller, imageId)
    const leaseId = randomUUID()
    const address = newAddress()
    this.lent.set(leaseId, { leaseId, holder, address })
    return { leaseId, image, address }
  }

  async readdress(leaseId: string): Promise<DiskAddress> {
    const lease = this.lent.get(leaseId)
    if (!lease) throw new ServiceError('not-found', `there is no lease ${leaseId}`)
    lease.address = newAddress()
    return lease.address
  }

  async release(leaseId: string): Promise<void> {
    this.lent.delete(leaseId)
  }

  async *held(holderKind: string): AsyncGenerator<HeldLease> {
    for (const lease of [...this.lent.values()]) if (lease.holder.startsWith(`${holderKind} `)) yield lease
  }
}
const newAddress = (): DiskAddress => ({ socketPath: '/run/imprint/nbd.sock', exportName: randomUUID() })

export interface WorldOptions {
  readonly quota?: Partial<Record<QuotaName, number>>
  readonly settings?: Partial<InstanceSettings>
  readonly abilities?: Partial<HypervisorAbilities>
}

/** The instances of a service on machines and images in memory, and a real catalog: for tests. */
export async function instanceWorld(options: WorldOptions = {}) {
  const catalog = await SqliteCatalog.open({ path: ':memory:' })
  const host = new MemoryHost()
  const images = new MemoryImages()
  const problems: unknown[] = []
  const listening = new Set<number>()
  /** @param between what stands between the use cases and the adapters: a test lets calls fail, or never end, there */
  const open = (
    between: {
      readonly hypervisor?: (real: Hypervisor & DiskLayers & MachineMemory) => Hypervisor & DiskLayers & MachineMemory
      readonly images?: ImageDisks
    } = {},
  ) => {
    const hypervisor = new MemoryHypervisor(host, options.abilities)
    return openInstances({
      catalog,
      hypervisor: between.hypervisor?.(hypervisor) ?? hypervisor,
      images: between.images ?? images,
      limits: { of: async (_, name) => options.quota?.[name as QuotaName] ?? -1 },
      hostPorts: { isFree: async ({ hostPort }) => !listening.has(hostPort) },
      diskSpace: async () => ({ totalBytes: 100 * GiB, freeBytes: 60 * GiB }),
      settings: { hostName: 'host', stopGraceMs: 50, ...options.settings },
      onProblem: (error) => problems.push(error),
    })
  }
  let service = await open()
  const image = images.add()
  const create = (caller: Caller, wanted: Partial<NewInstances> = {}) =>
    createInstances(service.ports, caller, { ...plainInstance, imageId: image, ...wanted })
  return {
    catalog,
    host,
    images,
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
export type InstanceWorld = Awaited<ReturnType<typeof instanceWorld>>

export const plainInstance: Omit<NewInstances, 'imageId'> = {
  name: 'web',
  description: null,
  flavorId: '1',
  keyName: null,
  userData: null,
  adminPassword: null,
  metadata: {},
  tags: [],
  network: 'auto',
  neighbours: { sameHost: [], differentHost: [] },
  accessIPv4: '',
  accessIPv6: '',
  diskConfig: 'MANUAL',
  least: 1,
  most: 1,
}

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
