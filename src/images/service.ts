import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Catalog } from '../store/catalog/catalog.ts'
import type { ChunkStore } from '../store/chunks/chunk-store.ts'
import { resumeDigests } from './complete-digests.ts'
import { ConvertedFiles } from './converted-files.ts'
import type { Examiner } from './examine/examiner.ts'
import type { Dialer } from './import/dialer.ts'
import { fetchFile } from './import/fetch-file.ts'
import { resumeImports } from './import/import-image.ts'
import { JobRunner } from './jobs.ts'
import { ManifestReaders } from './manifest-readers.ts'
import { PackedFiles, type PackingLimits } from './packed/packed-files.ts'
import type { ImagePorts, Limits, QuotaName } from './ports.ts'
import type { PropertyProtections } from './protections/protections.ts'
import { recoverImages } from './recover.ts'

export interface ImageServiceOptions {
  readonly catalog: Catalog
  readonly chunks: ChunkStore
  readonly limits: Limits
  readonly examiner: Examiner
  readonly dialer: Dialer
  readonly protections: PropertyProtections
  readonly maxImageBytes: number
  /** For projects of which `limits` knows nothing; absent: what issue and README promise. */
  readonly defaultLimits?: Partial<Readonly<Record<QuotaName, number>>>
  readonly concurrentJobs?: number
  /** Where files that are made for downloads lie, and how many; absent: among the system's temporary files. */
  readonly packed?: PackingLimits & { readonly folder: string }
  /** Told of a background job that threw. */
  readonly onProblem: (error: unknown) => void
  readonly now?: () => number
}

export interface ImageService {
  readonly ports: ImagePorts
  /** Background jobs end, to go on at the next start; then it resolves. Requests must have ended before. */
  close(): Promise<void>
}

const noLimitBut: ImagePorts['settings']['defaultLimits'] = {
  image_count_total: 50,
  image_size_total: -1,
  image_stage_total: -1,
  image_count_uploading: 100,
}
const CONCURRENT_JOBS = 4

/** The images of a service, everything that a stop or a crash left half done taken up or undone. */
export async function openImages(options: ImageServiceOptions): Promise<ImageService> {
  const { catalog, chunks, limits, examiner, dialer, protections, maxImageBytes, onProblem } = options
  const jobs = new JobRunner({
    concurrency: options.concurrentJobs ?? CONCURRENT_JOBS,
    onFailure: (_, error) => onProblem(error),
  })
  const packed = await packedFiles(options)
  const ports: ImagePorts = {
    catalog,
    chunks,
    examine: async (file, { diskFormat, ...as }, signal) => {
      try {
        return await examiner.examine(file, diskFormat, { ...as, signal })
      } finally {
        await file.close()
      }
    },
    inspect: async (file, format, signal) => {
      try {
        return await examiner.inspect(file, format, { signal })
      } finally {
        await file.close()
      }
    },
    limits,
    protections,
    source: {
      check: (uri) => void dialer.check(uri),
      fetch: (uri, limits) => fetchFile(dialer, uri, limits),
    },
    jobs,
    readers: new ManifestReaders(),
    converted: new ConvertedFiles(),
    packed: packed.files,
    settings: { maxImageBytes, defaultLimits: { ...noLimitBut, ...options.defaultLimits } },
    now: options.now ?? Date.now,
  }
  await recoverImages(ports)
  await resumeImports(ports)
  await resumeDigests(ports)
  return {
    ports,
    async close() {
      await jobs.stop()
      await ports.converted.close()
      await packed.close()
    },
  }
}

async function packedFiles({ packed, now }: ImageServiceOptions) {
  const folder = packed?.folder ?? (await mkdtemp(join(tmpdir(), 'imprint-packed-')))
  const files = await PackedFiles.at(folder, packed ?? unlimited, now)
  return {
    files,
    async close(): Promise<void> {
      await files.close()
      if (!packed) await rm(folder, { recursive: true })
    },
  }
}
const unlimited: PackingLimits = { maxBytes: Infinity, atATime: 1, roomBytes: async () => Infinity }
