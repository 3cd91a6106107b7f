/** Settings → adapters → services → server. The only file that names an adapter. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import pino, { type Logger } from 'pino'
import { lockFolder } from './base/folder-lock.ts'
import { createIdentity } from './identity/service.ts'
import { ChunkUploads } from './images/add-by-chunks.ts'
import { createExaminer } from './images/examine/examiner.ts'
import { createDialer } from './images/import/dialer.ts'
import { loadStandardMetadefs } from './images/metadefs/standard/load.ts'
import { noProtections, parseProtections } from './images/protections/protections.ts'
import { openImages } from './images/service.ts'
import { StoreJobs } from './images/store-jobs.ts'
import { identityApi } from './serve/http/identity/identity-api.ts'
import { imageApi, imageVersions } from './serve/http/image/image-api.ts'
import { imprintApi } from './serve/http/imprint/imprint-api.ts'
import { createMetrics } from './serve/http/metrics.ts'
import { createServer } from './serve/http/server.ts'
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

const VERSION = (JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }).version
const HOUR_MS = 3_600_000

/** `imprint serve`: runs until SIGTERM or SIGINT, then lets transfers finish. @returns the exit status */
export async function serve(
  flags: Readonly<Partial<Record<SettingName, string>>>,
  configFile: string | undefined,
): Promise<number> {
  const settings = readSettings(flags, process.env, configFile)
  const stopSignal = new Promise<NodeJS.Signals>((told) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, told)
  })
  const data = resolve(settings.data)
  mkdirSync(data, { recursive: true, mode: 0o700 })
  const unlock = lockFolder(join(data, 'lock'))
  const { log, place } = openLog(settings, data)
  const service = await openService(settings, data, log)
  try {
    await service.app.listen(hostAndPort(settings.listen))
    announce(addressOf(service.app, settings), data, place, service.firstPassword)
    log.info({ event: 'started', version: VERSION, data })
    log.info({ event: 'stopping', signal: await stopSignal })
    await drain(service.app, settings.drainSeconds, log)
  } finally {
    await service.close()
    unlock()
    log.info({ event: 'stopped' })
    log.flush()
  }
  return 0
}

interface Service {
  readonly app: FastifyInstance
  /** Made up for the first administrator; null on every later start. */
  readonly firstPassword: string | null
  close(): Promise<void>
}

async function openService(settings: Settings, data: string, log: Logger): Promise<Service> {
  const problem = (what: string) => (error: unknown) => log.error({ event: 'background-problem', what, err: error })
  const blobs = await FsBlobStore.open(join(data, 'store'))
  const catalog = await openCatalog(join(data, 'catalog.db'), blobs, log)
  const chunks = await openChunks(join(data, 'index.db'), blobs, catalog, settings, log)
  const identity = createIdentity(catalog, { tokenLifetimeMs: settings.tokenHours * HOUR_MS, region: settings.region })
  const password = settings.adminPassword
  const first = await identity.bootstrap({
    ...(password ? { password } : {}),
    defaultLimits: {
      image_count_total: settings.quotaImages,
      image_size_total: inMiB(settings.quotaBytes),
      image_count_uploading: settings.quotaUploads,
      image_stage_total: inMiB(settings.quotaStaged),
    },
  })
  await loadStandardMetadefs({ catalog })

  const examiner = createExaminer({})
  const images = await openImages({
    catalog,
    chunks,
    limits: identity.limits,
    examiner,
    dialer: createDialer({
      allowedHosts: settings.importHosts,
      allowedNetworks: settings.importNetworks,
      allowedPorts: settings.importPorts.map(Number),
    }),
    protections: settings.propertyProtections
      ? parseProtections(readFileSync(settings.propertyProtections, 'utf8'))
      : noProtections,
    maxImageBytes: settings.maxImageBytes,
    onProblem: problem('job'),
  })
  const jobs = new StoreJobs(images.ports, { blobs, open: (folder) => openBackupFolder(folder, data) })
  const uploads = new ChunkUploads(images.ports)
  const stopSweeping = identity.startSweeping()
  const stopCollecting = every(
    settings.collectHours * HOUR_MS,
    async () => {
      if (jobs.running) return
      log.info({ event: 'collected', ...(await jobs.collect()) })
    },
    problem('collector'),
  )

  const baseUrlOf = baseUrl(settings)
  const startedAt = Date.now()
  const app = createServer({
    apis: [
      identityApi({ identity, baseUrlOf }),
      imageApi({ ports: images.ports, baseUrlOf }),
      imprintApi({ images: images.ports, uploads, jobs, identity, version: VERSION, startedAt, now: Date.now }),
    ],
    authenticator: identity.authenticator,
    metrics: createMetrics(() => chunks.stats()),
    log,
    ...(settings.tlsCertificate
      ? { tls: { cert: readFileSync(settings.tlsCertificate, 'utf8'), key: readFileSync(settings.tlsKey, 'utf8') } }
      : {}),
    ready: async () => {
      await catalog.documents.get('identity-state', 'bootstrap')
      await chunks.stats()
    },
    versions: imageVersions,
    baseUrlOf,
  })
  return {
    app,
    firstPassword: first.password,
    async close() {
      stopCollecting()
      stopSweeping()
      await images.close()
      await examiner.close()
      await chunks.close()
      await catalog.close()
    },
  }
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
  const lost = !existsSync(path) && (await holdsAny(blobs, 'packs/'))
  const index = await SqliteChunkIndex.open(path)
  const chunks = await openChunkStore({ blobs, index, workers: settings.workers, memoryBytes: settings.memory })
  if (lost) {
    log.warn({ event: 'index-lost', message: 'the index of chunks is gone; making it again from the packs' })
    const live = async function* () {
      for await (const { manifest } of catalog.images.manifests()) yield manifest
    }
    log.warn({ event: 'index-rebuilt', ...(await chunks.rebuild(live)) })
  }
  return chunks
}

async function holdsAny(blobs: BlobStore, prefix: string): Promise<boolean> {
  for await (const _ of blobs.list(prefix)) return true
  return false
}

/** In a terminal the log goes to a file, for the terminal is for people; elsewhere (systemd, containers) to stderr. */
function openLog(settings: Settings, data: string): { log: Logger; place: string | null } {
  const place = process.stderr.isTTY ? join(data, 'imprint.log') : null
  const destination = pino.destination(place ? { dest: place, sync: false, mode: 0o600 } : { dest: 2, sync: false })
  return { log: pino({ level: settings.logLevel, base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination), place }
}

function announce(address: string, data: string, logFile: string | null, password: string | null): void {
  const say = (line = '') => process.stdout.write(`${line}\n`)
  say(`Imprint ${VERSION} answers at ${address}`)
  say(`  data   ${data}`)
  if (logFile) say(`  log    ${logFile}`)
  if (password !== null) {
    say()
    say('  The first administrator was made. This password is shown once; only its hash is kept:')
    say('    user      admin')
    say(`    password  ${password}`)
  }
  say()
  say('  Next, in another terminal:')
  say(`    bin/imprint login ${address}`)
  say()
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

function hostAndPort(listen: string): { host: string; port: number } {
  const colon = listen.lastIndexOf(':')
  return { host: listen.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(listen.slice(colon + 1)) }
}

function addressOf(app: FastifyInstance, settings: Settings): string {
  if (settings.publicUrl) return settings.publicUrl
  const bound = app.server.address()
  const port = typeof bound === 'object' && bound ? bound.port : hostAndPort(settings.listen).port
  return `${settings.tlsCertificate ? 'https' : 'http'}://${settings.listen.slice(0, settings.listen.lastIndexOf(':'))}:${port}`
}

/** Links lead back the way that the client came, unless the operator says otherwise. A Host header is a client's word: only a plain one is repeated. */
function baseUrl(settings: Settings): (request: FastifyRequest) => string {
  const PLAIN_HOST = /^([a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?$/i
  return (request) =>
    settings.publicUrl || `${request.protocol}://${PLAIN_HOST.test(request.host) ? request.host : settings.listen}`
}

const inMiB = (bytes: number): number => (bytes < 0 ? -1 : Math.floor(bytes / 2 ** 20))
