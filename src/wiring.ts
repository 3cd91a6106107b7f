/** Settings → adapters → services → server. The only file that names an adapter. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, join, resolve } from 'node:path'
import type { FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import { ServiceError } from './base/errors.ts'
import { lockFolder } from './base/folder-lock.ts'
import { GiB } from './base/units.ts'
import type { ServeOnce } from './cli/command.ts'
import { defaultCost } from './identity/passwords.ts'
import { createIdentity } from './identity/service.ts'
import { ChunkUploads } from './images/add-by-chunks.ts'
import { sweepBootRecords } from './images/boot-records/boot-records.ts'
import { sweepDeployments } from './images/deployments/deployments.ts'
import { createExaminer } from './images/examine/examiner.ts'
import { createDialer } from './images/import/dialer.ts'
import { sweepInspections } from './images/inspect/inspections.ts'
import { DiskLeases } from './images/leases/disk-leases.ts'
import { sweepExports } from './images/leases/exports.ts'
import { getLease } from './images/leases/lease.ts'
import { LeasedDisks } from './images/leases/leased-disks.ts'
import { loadStandardMetadefs } from './images/metadefs/standard/load.ts'
import { noProtections, parseProtections } from './images/protections/protections.ts'
import { recordedManifests } from './images/recorded-manifests.ts'
import { openImages } from './images/service.ts'
import { ImageSnapshots } from './images/snapshots/snapshots.ts'
import { StoreJobs } from './images/store-jobs.ts'
import { VolumeDisks } from './images/volumes/volume-disks.ts'
import type { InstanceSettings } from './instances/ports.ts'
import { openInstances } from './instances/service.ts'
import { beginDueBackups } from './instances/snapshots/backup-schedules.ts'
import { instances as instanceRecords } from './instances/store.ts'
import { computeApi } from './serve/http/compute/compute-api.ts'
import { identityApi } from './serve/http/identity/identity-api.ts'
import { imageApi, imageVersions } from './serve/http/image/image-api.ts'
import { imprintApi } from './serve/http/imprint/imprint-api.ts'
import { createMetrics } from './serve/http/metrics.ts'
import { netbootApi } from './serve/http/netboot/netboot-api.ts'
import { createServer } from './serve/http/server.ts'
import { volumeApi } from './serve/http/volume/volume-api.ts'
import { addressFor, baseUrl, hostAndPort } from './serve/process/address.ts'
import { announcement } from './serve/process/announce.ts'
import { openLog } from './serve/process/log.ts'
import { openNbd } from './serve/process/nbd-endpoint.ts'
import { readSettings, type SettingName, type Settings } from './settings/settings.ts'
import type { BlobStore } from './store/blobs/blob-store.ts'
import { openBackupFolder } from './store/blobs/fs/backup-folder.ts'
import { FsBlobStore } from './store/blobs/fs/fs-blob-store.ts'
import type { Catalog } from './store/catalog/catalog.ts'
import { rebuildCatalog } from './store/catalog/sqlite/rebuild-catalog.ts'
import { SqliteCatalog } from './store/catalog/sqlite/sqlite-catalog.ts'
import type { ChunkStore } from './store/chunks/chunk-store.ts'
import { SqliteChunkIndex } from './store/chunks/index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from './store/chunks/open.ts'
import { ScratchDisks } from './store/scratch/scratch-disks.ts'
import { AttachedVolumes } from './volumes/attachments/attached-volumes.ts'
import { openVolumes } from './volumes/service.ts'
import { assertReachable, bridgeOf, confinement, joinHosts, letPass, openHypervisor } from './wiring-machines.ts'
import { hostRoom, spaceAt } from './wiring-room.ts'

const VERSION = (JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }).version
const HOUR_MS = 3_600_000
const MINUTE_MS = 60_000

/** `imprint serve`: runs until SIGTERM or SIGINT, then lets transfers finish. @returns the exit status */
export async function serve(
  flags: Readonly<Partial<Record<SettingName, string>>>,
  configFile: string | undefined,
  once: ServeOnce = {},
): Promise<number> {
  const settings = readSettings(flags, process.env, configFile)
  const stopSignal = new Promise<NodeJS.Signals>((told) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, told)
  })
  const data = resolve(settings.data)
  mkdirSync(data, { recursive: true, mode: 0o700 })
  await using opened = new AsyncDisposableStack() // closed in reverse, also where the start fails half-way
  opened.defer(lockFolder(join(data, 'lock')))
  const { log, file } = openLog(settings, data)
  opened.defer(() => {
    log.info({ event: 'stopped' })
    log.flush()
  })
  const { app, firstPassword } = await openService(settings, once, data, log, opened)
  const port = await listen(app, settings.listen)
  const address = addressFor(settings, port)
  process.stdout.write(announcement({ version: VERSION, address, dataFolder: data, logFile: file, firstPassword }))
  log.info({ event: 'started', version: VERSION, address })
  log.info({ event: 'stopping', signal: await stopSignal })
  await drain(app, settings.drainSeconds, log)
  return 0
}

interface Service {
  readonly app: FastifyInstance
  /** Made up for the first administrator; null on every later start. */
  readonly firstPassword: string | null
}

/** @param opened gets what must be closed */
async function openService(
  settings: Settings,
  once: ServeOnce,
  data: string,
  log: Logger,
  opened: AsyncDisposableStack,
): Promise<Service> {
  const problem = (what: string) => (error: unknown) => log.error({ event: 'background-problem', what, err: error })
  const blobs = await FsBlobStore.open(join(data, 'store'))
  const catalog = opened.adopt(await openCatalog(join(data, 'catalog.db'), blobs, log), (it) => it.close())
  const chunks = opened.adopt(await openChunks(join(data, 'index.db'), blobs, catalog, settings, log), (it) => it.close())
  const identity = createIdentity(catalog, {
    tokenLifetimeMs: settings.tokenHours * HOUR_MS,
    region: settings.region,
    passwords: { cost: { ...defaultCost, parallel: settings.passwordPasses } },
  })
  const { password: firstPassword } = await identity.bootstrap({
    ...(settings.adminPassword ? { password: settings.adminPassword } : {}),
    reset: once.resetAdminPassword ?? false,
    defaultLimits: {
      image: {
        image_count_total: settings.quotaImages,
        image_size_total: inMiB(settings.quotaBytes),
        image_count_uploading: settings.quotaUploads,
        image_stage_total: inMiB(settings.quotaStaged),
      },
      compute: computeLimits(settings),
      volumev3: volumeLimits(settings),
    },
  })
  await loadStandardMetadefs({ catalog })

  const images = opened.adopt(
    await openImages({
      catalog,
      chunks,
      limits: identity.limits,
      examiner: opened.adopt(createExaminer({ startedAhead: 1 }), (it) => it.close()),
      dialer: createDialer({
        allowedHosts: settings.importHosts,
        allowedNetworks: settings.importNetworks,
        allowedPorts: settings.importPorts.map(Number),
      }),
      protections: settings.propertyProtections
        ? parseProtections(readFileSync(settings.propertyProtections, 'utf8'))
        : noProtections,
      maxImageBytes: settings.maxImageBytes,
      packed: packing(settings, data),
      onProblem: problem('job'),
    }),
    (it) => it.close(),
  )
  const scratch = await ScratchDisks.at(join(data, 'scratch'))
  const sweepScratch = async () => void (await scratch.sweep(async (id) => (await getLease(catalog, id)) !== undefined))
  await sweepScratch()
  opened.defer(every(HOUR_MS, sweepScratch, problem('scratch disks')))
  const disks = new LeasedDisks(images.ports, scratch)
  const leases = { catalog, now: images.ports.now, disks, scratchQuotaBytes: settings.quotaScratch }
  const endExpired = async () => {
    await sweepExports(leases)
    await sweepDeployments(leases)
  }
  const endUnused = async () => {
    await endExpired()
    await sweepBootRecords(catalog)
    await sweepInspections(catalog)
  }
  const jobs = new StoreJobs(images.ports, { blobs, open: (folder) => openBackupFolder(folder, data) }, endUnused)
  const collect = async () => {
    if (!jobs.running) log.info({ event: 'collected', ...(await jobs.collect()) })
  }
  opened.defer(identity.startSweeping())
  opened.defer(every(settings.collectHours * HOUR_MS, collect, problem('collector')))

  const baseUrlOf = baseUrl(settings)
  const uploads = new ChunkUploads(images.ports)
  const sweep = async () => void (await uploads.sweep())
  opened.defer(every(HOUR_MS, sweep, problem('uploads by chunks')))
  const confined = await confinement(settings)
  const nbd = opened.adopt(await openNbd(settings, disks, log.child({ event: 'nbd' }), confined.user), (it) => it.close())
  if (confined.user) await letPass(data, ['machines', basename(nbd.addresses.socketPath)])
  await assertReachable(confined, nbd.addresses.socketPath)
  opened.defer(every(MINUTE_MS, endExpired, problem('exports')))
  const lent = new DiskLeases({ ...images.ports, ...leases }, nbd.addresses.socketPath)
  const snapshots = new ImageSnapshots(images.ports)
  const own = opened.adopt(await openHypervisor(settings, confined, join(data, 'machines'), log, problem('instances')), (it) =>
    it.close(),
  )
  const placeOf = async (id: string) => (await instanceRecords.get(catalog.documents, id))?.host ?? null
  const machines = await joinHosts(own, settings.instanceHosts, placeOf, problem('hosts'))
  opened.adopt(machines.hypervisor, (it) => it.close()) // for a start that fails: else the instances close it
  const promises = { reservedBytes: settings.volumeReserve, promiseRatio: settings.volumePromisePercent / 100 }
  const room = hostRoom({
    folder: data,
    images: catalog.images,
    scratch,
    hypervisor: machines.hypervisor,
    idleBytes: () => images.ports.packed.idleBytes,
    promises,
  })
  const volumes = opened.adopt(
    await openVolumes({
      catalog,
      contents: new VolumeDisks({ ...leases, chunks }, lent),
      images: {
        show: (...asked) => lent.show(...asked),
        showPart: (...asked) => lent.showPart(...asked),
        begin: (...asked) => snapshots.begin(...asked),
        save: (...asked) => snapshots.save(...asked),
        giveUp: (...asked) => snapshots.giveUp(...asked),
      },
      limits: identity.limitsOf('volumev3'),
      disk: room.forVolumes,
      settings: { defaultLimits: volumeLimits(settings), ...promises },
      onProblem: problem('volumes'),
    }),
    (it) => it.close(),
  )
  const instances = opened.adopt(
    await openInstances({
      catalog,
      ...machines,
      images: lent,
      snapshots,
      volumes: new AttachedVolumes(volumes.ports),
      limits: identity.limitsOf('compute'),
      disk: room.forInstances,
      settings: instanceSettings(settings),
      onProblem: problem('instances'),
    }),
    (it) => it.close(),
  )
  const backUp = async () => void (await beginDueBackups(instances.ports))
  opened.defer(every(MINUTE_MS, backUp, problem('backups')))
  const app = createServer({
    apis: [
      computeApi({ ports: instances.ports, baseUrlOf }),
      identityApi({ identity, baseUrlOf }),
      imageApi({ ports: images.ports, baseUrlOf }),
      imprintApi({
        images: images.ports,
        uploads,
        jobs,
        leases: { ...leases, hostDisk: room.forExports },
        instances: instances.ports,
        nbd: nbd.addresses,
        identity,
        version: VERSION,
        startedAt: Date.now(),
        now: Date.now,
      }),
      volumeApi({ ports: volumes.ports, baseUrlOf }),
      netbootApi({
        leases,
        folder: resolve(settings.netboot || join(data, 'netboot')),
        networks: settings.netbootNetworks,
        baseUrlOf,
      }),
    ],
    authenticator: identity.authenticator,
    metrics: createMetrics(() => chunks.stats(), nbd.counters),
    log,
    ...(settings.tlsCertificate
      ? { tls: { cert: readFileSync(settings.tlsCertificate), key: readFileSync(settings.tlsKey) } }
      : {}),
    ready: async () => {
      await catalog.documents.get('identity-state', 'bootstrap')
      await chunks.stats()
    },
    versions: imageVersions,
    baseUrlOf,
  })
  return { app, firstPassword }
}

const computeLimits = ({ quotaInstances, quotaCores, quotaRam }: Settings) => ({
  instances: quotaInstances,
  cores: quotaCores,
  ram: inMiB(quotaRam),
})

const volumeLimits = ({ quotaVolumes, quotaVolumeSnapshots, quotaVolumeBytes }: Settings) => ({
  volumes: quotaVolumes,
  snapshots: quotaVolumeSnapshots,
  gigabytes: quotaVolumeBytes < 0 ? -1 : Math.floor(quotaVolumeBytes / GiB),
  per_volume_gigabytes: -1,
})

/** Files that are made for downloads: they leave free what volumes and instances leave free, too. */
const packing = ({ packedBytes, packsAtOnce, volumeReserve }: Settings, data: string) => ({
  folder: join(data, 'packed'),
  maxBytes: packedBytes,
  atATime: packsAtOnce || Math.max(1, Math.floor(availableParallelism() / 2)),
  roomBytes: async () => (await spaceAt(data)).freeBytes - volumeReserve,
})

function instanceSettings(settings: Settings): Partial<InstanceSettings> {
  const [first = 0, last = 0] = settings.instancePorts.split('-').map(Number)
  return {
    defaultLimits: computeLimits(settings),
    forwardAddress: settings.instanceAddress,
    forwardPorts: { first, last },
    isolateGuests: settings.instanceNetwork === 'isolated',
    bridge: bridgeOf(settings),
    stopGraceMs: settings.instanceStopSeconds * 1000,
  }
}

/** @returns the port that was bound */
async function listen(app: FastifyInstance, address: string): Promise<number> {
  try {
    await app.listen(hostAndPort(address))
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw cause
    const message = `another program answers at ${address} already; choose another address with --listen or IMPRINT_LISTEN`
    throw new ServiceError('conflict', message, {}, { cause })
  }
  const bound = app.server.address()
  return typeof bound === 'object' && bound ? bound.port : hostAndPort(address).port
}

/** A database that is lost is made again from the journal in the store. */
async function openCatalog(path: string, blobs: BlobStore, log: Logger): Promise<Catalog> {
  const options = {
    path,
    journal: blobs,
    onProblem: (error: unknown) => log.error({ event: 'background-problem', what: 'catalog', err: error }),
  }
  if (!existsSync(path) && (await holdsAny(blobs, 'journal/'))) {
    log.warn({ event: 'catalog-lost', message: 'the database is gone; making it again from the store' })
    log.warn({ event: 'catalog-rebuilt', ...(await rebuildCatalog({ path, journal: blobs })) })
  }
  return SqliteCatalog.open(options)
}

/** An index that is lost is made again from the packs. */
async function openChunks(
  path: string,
  blobs: BlobStore,
  catalog: Catalog,
  settings: Settings,
  log: Logger,
): Promise<ChunkStore> {
  const unfinished = `${path}.rebuilding` // stands there while the index is made again, so that a kill does not leave half of one
  const lost = existsSync(unfinished) || (!existsSync(path) && (await holdsAny(blobs, 'packs/')))
  if (lost) writeFileSync(unfinished, '')
  const index = await SqliteChunkIndex.open(path)
  const chunks = await openChunkStore({ blobs, index, workers: settings.workers, memoryBytes: settings.memory })
  if (lost) {
    log.warn({ event: 'index-lost', message: 'the index of chunks is gone; making it again from the packs' })
    log.warn({ event: 'index-rebuilt', ...(await chunks.rebuild(() => recordedManifests(catalog))) })
    rmSync(unfinished)
  }
  return chunks
}

async function holdsAny(blobs: BlobStore, prefix: string): Promise<boolean> {
  for await (const _ of blobs.list(prefix)) return true
  return false
}

/** Lets requests finish for so long, then cuts what is left. */
async function drain(app: FastifyInstance, seconds: number, log: Logger): Promise<void> {
  const cut = setTimeout(() => {
    log.warn({ event: 'drain-ended', message: `transfers still ran after ${seconds} s and were cut` })
    app.server.closeAllConnections()
  }, seconds * 1000)
  await app.close()
  clearTimeout(cut)
}

/** @returns stops it */
function every(ms: number, work: () => Promise<void>, onProblem: (error: unknown) => void): () => void {
  if (ms === 0) return () => {}
  const timer = setInterval(() => void work().catch(onProblem), ms)
  return () => clearInterval(timer)
}

const inMiB = (bytes: number): number => (bytes < 0 ? -1 : Math.floor(bytes / 2 ** 20))
