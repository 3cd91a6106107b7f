import { type Caller, serviceCaller } from '../base/caller.ts'
import { MemoryBlobStore } from '../store/blobs/memory/memory-blob-store.ts'
import type { ImageRecord } from '../store/catalog/catalog.ts'
import { SqliteCatalog } from '../store/catalog/sqlite/sqlite-catalog.ts'
import { SqliteChunkIndex } from '../store/chunks/index/sqlite/sqlite-chunk-index.ts'
import { openChunkStore } from '../store/chunks/open.ts'
import { type NewImage, newImageFrom } from './attributes.ts'
import { createImage } from './create-image.ts'
import { createExaminer } from './examine/examiner.ts'
import { createDialer } from './import/dialer.ts'
import type { QuotaName } from './ports.ts'
import { noProtections, type PropertyProtections } from './protections/protections.ts'
import { recordedManifests } from './recorded-manifests.ts'
import { openImages } from './service.ts'

/** The images of a service on real adapters that live in memory: for tests. One for each file of tests: its threads are slow to begin. */
export async function imageWorld(
  options: {
    readonly protections?: PropertyProtections
    readonly quota?: Partial<Record<QuotaName, number>>
    readonly maxImageBytes?: number
  } = {},
) {
  const catalog = await SqliteCatalog.open({ path: ':memory:' })
  const blobs = new MemoryBlobStore()
  const chunks = await openChunkStore({
    blobs,
    index: await SqliteChunkIndex.open(':memory:'),
    workers: 1,
  })
  const examiner = createExaminer({ workers: 1 })
  const problems: unknown[] = []
  /** By project, then name; −1 for all others. Tests change it. */
  const limits = new Map<string, Partial<Record<QuotaName, number>>>()
  const open = () =>
    openImages({
      catalog,
      chunks,
      examiner,
      limits: {
        of: async (project, name) => limits.get(project)?.[name as QuotaName] ?? options.quota?.[name as QuotaName] ?? -1,
      },
      dialer: createDialer({ allowedHosts: [], allowedNetworks: [], allowedPorts: [443] }),
      protections: options.protections ?? noProtections,
      maxImageBytes: options.maxImageBytes ?? 64 * 1024 * 1024,
      onProblem: (error) => problems.push(error),
    })
  const service = await open()
  const { ports } = service
  const create = (caller: Caller, members: Record<string, unknown> = {}): Promise<ImageRecord> =>
    createImage(ports, caller, newImageFrom({ disk_format: 'raw', container_format: 'bare', ...members }) satisfies NewImage)
  return {
    ports,
    chunks,
    blobs,
    limits,
    problems,
    create,
    /** Removes what no record names and nobody reads. */
    collect: () =>
      chunks.collect(async function* () {
        yield* recordedManifests(catalog)
        for (const manifest of ports.readers.held()) yield { manifest, isRead: true }
      }),
    /** As a start of the service would. */
    reopen: open,
    async close(): Promise<void> {
      await service.close()
      await examiner.close()
      await chunks.close()
      await catalog.close()
    },
  }
}
export type ImageWorld = Awaited<ReturnType<typeof imageWorld>>

const implied = { none: [], reader: ['reader'], member: ['member', 'reader'], admin: ['admin', 'member', 'reader'] } as const

/** Somebody with a role in a project. */
export function someone(projectId: string | null, role: keyof typeof implied = 'member'): Caller {
  return {
    ...serviceCaller('req-test'),
    userId: `user-of-${projectId}`,
    projectId,
    projectName: projectId,
    roles: new Set(implied[role]),
    isAdmin: role === 'admin',
    systemScope: false,
  }
}

/** A body as a connection delivers it. */
export async function* inPieces(bytes: Uint8Array, pieceBytes = 16 * 1024): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes)
}
export const sent = (bytes: Uint8Array) => ({ bytes: inPieces(bytes), declaredBytes: bytes.length })
