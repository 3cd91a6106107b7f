import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { type Caller, serviceCaller } from '../../base/caller.ts'
import { FsBlobStore } from '../../store/blobs/fs/fs-blob-store.ts'
import { MemoryBlobStore } from '../../store/blobs/memory/memory-blob-store.ts'
import type { ImageRecord } from '../../store/catalog/catalog.ts'
import { SqliteCatalog } from '../../store/catalog/sqlite/sqlite-catalog.ts'
import { SqliteChunkIndex } from '../../store/chunks/index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from '../../store/chunks/open.ts'
import { createExaminer } from '../examine/examiner.ts'
import type { QuotaName } from '../ports.ts'
import { noProtections, type PropertyProtections } from '../protections/protections.ts'
import { openImages } from '../service.ts'
import { createDialer } from './dialer.ts'
import { importImage } from './import-image.ts'
import { importRequestFrom } from './import-request.ts'
import { showTask, type TaskRecord } from './tasks.ts'

/**
 * Threads and stores are slow to begin: one set serves all tests of a file, each of which leaves it empty.
 * @param folder where they outlive the process; absent: memory
 */
export async function importStores(folder?: string) {
  const fs = folder === undefined ? undefined : await FsBlobStore.open(join(folder, 'blobs'))
  const path = (name: string): string => (folder === undefined ? ':memory:' : join(folder, name))
  const catalog = await SqliteCatalog.open({ path: path('catalog.db') })
  const index = await SqliteChunkIndex.open(path('index.db'))
  const chunks = await openChunkStore({ blobs: fs ?? new MemoryBlobStore(), index, workers: 1 })
  const examiner = createExaminer({ workers: 1 })
  return {
    catalog,
    chunks,
    examiner,
    async close(): Promise<void> {
      await examiner.close()
      await chunks.close()
      await catalog.close()
      await fs?.close()
    },
  }
}

/** The images of a service on real adapters in memory, for tests of imports. */
export async function importService(
  { catalog, chunks, examiner }: Awaited<ReturnType<typeof importStores>>,
  options: {
    readonly ports: readonly number[]
    readonly maxImageBytes?: number
    readonly quota?: Partial<Record<QuotaName, number>>
    readonly problems?: unknown[]
    readonly protections?: PropertyProtections
  },
) {
  const made: string[] = []
  const open = () =>
    openImages({
      catalog,
      chunks,
      examiner,
      limits: { of: async () => undefined },
      dialer: createDialer({
        allowedHosts: [],
        allowedNetworks: ['127.0.0.1'],
        allowedPorts: options.ports,
        limits: { stallMs: 500, stallBytes: 1 },
      }),
      protections: options.protections ?? noProtections,
      maxImageBytes: options.maxImageBytes ?? 2 ** 26,
      defaultLimits: options.quota ?? {},
      onProblem: (error) => options.problems?.push(error) ?? console.error(error),
    })
  const state = { service: await open() }

  const caller: Caller = {
    ...serviceCaller('req-test'),
    isAdmin: false,
    roles: new Set(['member', 'reader']),
    projectId: 'p1',
    systemScope: false,
  }
  async function image(fields: Partial<ImageRecord> = {}): Promise<string> {
    const id = randomUUID()
    const at = Date.now()
    made.push(id)
    await catalog.write(({ images }) =>
      images.create({
        id,
        name: 'n',
        status: 'queued',
        visibility: 'shared',
        owner: 'p1',
        protected: false,
        hidden: false,
        diskFormat: 'raw',
        containerFormat: 'bare',
        minDisk: 0,
        minRam: 0,
        size: null,
        virtualSize: null,
        checksum: null,
        hashAlgo: null,
        hashValue: null,
        createdAt: at,
        updatedAt: at,
        deletedAt: null,
        tags: [],
        properties: {},
        manifest: null,
        stagedManifest: null,
        notes: {},
        version: 1,
        ...fields,
      }),
    )
    return id
  }
  const show = async (id: string): Promise<ImageRecord> => (await catalog.images.get(id)) as ImageRecord

  return {
    catalog,
    chunks,
    caller,
    image,
    show,
    ports: () => state.service.ports,
    begin: (id: string, method: object): Promise<TaskRecord | null> =>
      importImage(state.service.ports, caller, id, importRequestFrom({ method })),
    /** Imports, and waits for the end. */
    async import(id: string, method: object): Promise<{ image: ImageRecord; task: TaskRecord }> {
      const task = await importImage(state.service.ports, caller, id, importRequestFrom({ method }))
      await state.service.ports.jobs.idle()
      return { image: await show(id), task: await showTask(catalog, caller, task?.id ?? '') }
    },
    bytesOf: async (id: string): Promise<Buffer> => {
      const { manifest, size } = await show(id)
      return buffer(chunks.stream(manifest ?? '', 0, size ?? 0))
    },
    /** What a stop and a start do. */
    stop: () => state.service.close(),
    async start() {
      state.service = await open()
      await state.service.ports.jobs.idle()
    },
    /** Manifests and chunks that are left once nothing uses them. */
    async collected() {
      await chunks.collect(async function* () {
        for await (const { manifest } of catalog.images.manifests()) yield manifest
      })
      return chunks.stats()
    },
    async close() {
      await state.service.close()
      for (const id of made) {
        await catalog.write(async ({ images }) => {
          const left = await images.get(id)
          const changes = { status: 'deleted', manifest: null, stagedManifest: null, notes: {} } as const
          if (left && left.status !== 'deleted') await images.update(id, left.version, changes)
        })
      }
    },
  }
}
