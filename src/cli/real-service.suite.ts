/** The service itself, in this process, for tests of the command line: real adapters, a free port, an administrator. */
import { mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyRequest } from 'fastify'
import pino from 'pino'
import { createIdentity } from '../identity/service.ts'
import { ChunkUploads } from '../images/add-by-chunks.ts'
import { createExaminer } from '../images/examine/examiner.ts'
import { createDialer } from '../images/import/dialer.ts'
import { DiskLeases } from '../images/leases/disk-leases.ts'
import { LeasedDisks } from '../images/leases/leased-disks.ts'
import type { ImagePorts } from '../images/ports.ts'
import { noProtections } from '../images/protections/protections.ts'
import { openImages } from '../images/service.ts'
import { ImageSnapshots } from '../images/snapshots/snapshots.ts'
import { StoreJobs } from '../images/store-jobs.ts'
import { Hosts } from '../instances/hypervisor/hosts/hosts.ts'
import { MemoryHost, type MemoryNetwork } from '../instances/hypervisor/memory/memory-host.ts'
import { MemoryHypervisor } from '../instances/hypervisor/memory/memory-hypervisor.ts'
import { promisedToInstances } from '../instances/launch/host-room.ts'
import { MemoryVolumes } from '../instances/memory-volumes.suite.ts'
import type { InstancePorts } from '../instances/ports.ts'
import { openInstances } from '../instances/service.ts'
import { instances } from '../instances/store.ts'
import { computeApi } from '../serve/http/compute/compute-api.ts'
import { identityApi } from '../serve/http/identity/identity-api.ts'
import { imageApi } from '../serve/http/image/image-api.ts'
import { imprintApi } from '../serve/http/imprint/imprint-api.ts'
import { createMetrics } from '../serve/http/metrics.ts'
import { netbootApi } from '../serve/http/netboot/netboot-api.ts'
import { createServer } from '../serve/http/server.ts'
import { MemoryBlobStore } from '../store/blobs/memory/memory-blob-store.ts'
import { SqliteCatalog } from '../store/catalog/sqlite/sqlite-catalog.ts'
import { SqliteChunkIndex } from '../store/chunks/index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from '../store/chunks/open.ts'
import { ScratchDisks } from '../store/scratch/scratch-disks.ts'

export const ADMIN_PASSWORD = 'correct horse battery'

export interface RealService {
  readonly url: string
  readonly images: ImagePorts
  /** What an NBD server would open. */
  readonly disks: LeasedDisks
  /** Its instances run in memory. */
  readonly host: MemoryHost
  readonly instances: InstancePorts
  /** Where the system for machines that start from the network would lie. */
  readonly netbootFolder: string
  close(): Promise<void>
}

export interface RealServiceOptions {
  readonly importPorts?: readonly number[]
  /** Its clock, in milliseconds since 1970. */
  readonly now?: () => number
  readonly tokenLifetimeMs?: number
  /** The name of a second host. */
  readonly otherHost?: string
}

export async function startService({ now = Date.now, ...options }: RealServiceOptions = {}): Promise<RealService> {
  const catalog = await SqliteCatalog.open({ path: ':memory:' })
  const { tokenLifetimeMs } = options
  const identity = createIdentity(catalog, {
    now,
    passwords: { cost: { cost: 16, blockSize: 8, parallel: 1 } }, // a thousandth of the real one: every command logs in
    ...(tokenLifetimeMs === undefined ? {} : { tokenLifetimeMs }),
  })
  await identity.bootstrap({ password: ADMIN_PASSWORD })
  const blobs = new MemoryBlobStore()
  const chunks = await openChunkStore({
    blobs,
    index: await SqliteChunkIndex.open(':memory:'),
    workers: 2,
  })
  const examiner = createExaminer({ workers: 1 })
  const service = await openImages({
    catalog,
    chunks,
    limits: identity.limits,
    examiner,
    dialer: createDialer({
      allowedHosts: ['127.0.0.1', 'localhost'],
      allowedNetworks: [],
      allowedPorts: options.importPorts ?? [80],
    }),
    protections: noProtections,
    maxImageBytes: 2 ** 40,
    onProblem: (error) => console.error(error),
    now,
  })
  const images = service.ports
  const scratchFolder = await mkdtemp(join(tmpdir(), 'imprint-scratch-'))
  const disks = new LeasedDisks(images, await ScratchDisks.at(scratchFolder))
  const leases = { catalog, now, disks, scratchQuotaBytes: 2 ** 30 }
  const hostDisk = { promisable: async () => 2 ** 39, promised: promisedToInstances }
  const network: MemoryNetwork = new Map()
  const host = new MemoryHost({ network })
  const hosts = [
    { name: hostname(), machines: new MemoryHypervisor(host) },
    ...(options.otherHost ? [{ name: options.otherHost, machines: new MemoryHypervisor(new MemoryHost({ network })) }] : []),
  ] as const
  const placeOf = async (id: string) => (await instances.get(catalog.documents, id))?.host ?? null
  const compute = await openInstances({
    catalog,
    hypervisor: new Hosts({ hosts, placeOf }),
    hosts,
    images: new DiskLeases({ ...images, ...leases }, '/run/imprint/nbd.sock'),
    snapshots: new ImageSnapshots(images),
    volumes: new MemoryVolumes(),
    limits: identity.limitsOf('compute'),
    disk: { ...hostDisk, space: async () => ({ totalBytes: 2 ** 40, freeBytes: 2 ** 39 }) },
    hostPorts: { isFree: async () => true },
    settings: { stopGraceMs: 50 },
    onProblem: (error) => console.error(error),
    now,
  })
  const baseUrlOf = (request: FastifyRequest) => `http://${request.headers.host}`
  const app = createServer({
    apis: [
      computeApi({ ports: compute.ports, baseUrlOf }),
      identityApi({ identity, baseUrlOf }),
      imageApi({ ports: images, baseUrlOf }),
      imprintApi({
        images,
        uploads: new ChunkUploads(images),
        jobs: new StoreJobs(images, {
          blobs,
          open: async () => ({ blobs: new MemoryBlobStore(), complete: async () => {}, close: async () => {} }),
        }),
        leases: { ...leases, hostDisk },
        instances: compute.ports,
        nbd: { socketPath: '/run/imprint/nbd.sock', tcp: { host: '0.0.0.0', port: 10_809, isSecure: true } },
        identity,
        version: '0.0.0-test',
        startedAt: now(),
        now,
      }),
      netbootApi({
        networks: ['127.0.0.0/8'],
        leases: { catalog, now, disks, scratchQuotaBytes: 2 ** 30 },
        folder: join(scratchFolder, 'netboot'),
        baseUrlOf,
      }),
    ],
    authenticator: identity.authenticator,
    metrics: createMetrics(() => chunks.stats()),
    log: pino({ level: process.env.IMPRINT_TEST_LOG ?? 'silent' }),
    ready: async () => {},
    versions: () => ({}),
    baseUrlOf,
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  return {
    url: `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`,
    images,
    disks,
    host,
    instances: compute.ports,
    netbootFolder: join(scratchFolder, 'netboot'),
    async close() {
      await app.close()
      await compute.close()
      await service.close()
      await examiner.close()
      await chunks.close()
      await catalog.close()
      await rm(scratchFolder, { recursive: true })
    },
  }
}
