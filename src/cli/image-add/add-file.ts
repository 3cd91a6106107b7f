import { stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { GiB } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { type Layer, startable } from '../../disk/containers/index.ts'
import { persist } from '../client/http-client.ts'
import type { Image } from '../client/image-client.ts'
import type { ImprintClient, Upload } from '../client/imprint-client.ts'
import type { TransferState } from '../progress.ts'
import { type LocalImage, openLocalImage } from './local-image.ts'
import { type Sent, sendChunks } from './send-chunks.ts'
import { type PublishedDigest, verifySource } from './source-digest.ts'
import { RECORD_BYTES, UploadState } from './upload-state.ts'

/** Chunks that one question names: 256 KiB of digests. */
const RECONCILED_AT_ONCE = 8192
/** About two minutes of trying while the service restarts. */
const TRIES = 9
/** A commit that finds chunks missing is tried again after they were sent. */
const COMMITS = 3

export interface AddFileOptions {
  readonly path: string
  readonly imprint: ImprintClient
  readonly cacheFolder: string
  /** Whose upload this is: service, user and project. */
  readonly who: readonly (string | null)[]
  /** In the words of `/v1`. */
  readonly fields: Readonly<Record<string, unknown>>
  /** Keeps the file's own bytes instead of the disk in it. */
  readonly asFile: boolean
  /** Of an archive. */
  readonly member: string | undefined
  /** What may be kept here of what is unpacked. */
  readonly spoolBytes: number
  readonly published: PublishedDigest | undefined
  /** Forgets what an earlier run sent. */
  readonly restart: boolean
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}
export interface Added extends Sent {
  readonly image: Image
  readonly sourceFormat: string
  readonly diskFormat: string
  /** What the disk was in, from the outside in. */
  readonly layers: readonly Layer[]
}

/**
 * Sends the disk in a local file (or, for a format that we do not open, the file itself) as chunks, and makes the image of it.
 * Killed at any moment, it goes on from there when it is run again on the same file.
 * @throws ServiceError `conflict` where the file changes meanwhile
 */
export async function addFile(options: AddFileOptions): Promise<Added> {
  const { imprint, published, signal } = options
  const path = resolve(options.path)
  const before = await fingerprint(path)
  const { asFile, member, spoolBytes: maxBytes, onProgress } = options
  const local = await openLocalImage(path, { asFile, member, maxBytes, signal, onProgress })
  try {
    const state = await UploadState.open(options.cacheFolder, [
      ...options.who,
      path,
      before,
      local.diskFormat,
      ...(member === undefined ? [] : [member]),
    ])
    let finished = false
    try {
      const fields = {
        fileBytes: local.source.size,
        diskFormat: local.diskFormat,
        image: withHints(options.fields, local),
        source: {
          format: local.sourceFormat,
          bytes: local.fileBytes,
          fileName: basename(path).slice(0, 255),
          ...(published ? { digest: `${published.algorithm}:${published.hex}` } : {}),
        },
      }
      const upload = await beginOrResume(state, imprint, fields, options.restart, signal)
      const stop = new AbortController()
      const together = AbortSignal.any([signal, stop.signal])
      const checking = published ? verifySource(path, published, together) : Promise.resolve()
      const send = () =>
        sendChunks({ source: local.source, upload, state, imprint, signal: together, onProgress: options.onProgress })
      const sent = await both(send(), checking, () => stop.abort())
      if ((await fingerprint(path)) !== before) {
        await state.forgetChunks()
        throw new ServiceError(
          'conflict',
          `${options.path} changed while it was read; nothing was added, run the command again when it rests`,
        )
      }
      const image = await commit(state, imprint, upload, local.source, signal, send)
      finished = true
      const { sourceFormat, diskFormat, layers } = local
      return { ...sent, image, sourceFormat, diskFormat, layers }
    } catch (error) {
      if (isServiceError(error, 'corrupt') && published && state.uploadId) {
        await imprint.abandonUpload(state.uploadId).catch(() => {})
        finished = true
      }
      throw error
    } finally {
      await (finished ? state.forget() : state.close())
    }
  } finally {
    await local.source.close()
  }
}

/** What tells whether a file is still the one that was begun with. */
/** What an OVA says of its machine, where the person who adds it says nothing else. */
function withHints(fields: Readonly<Record<string, unknown>>, { hints, source }: LocalImage): Readonly<Record<string, unknown>> {
  if (!hints) return fields
  const own = (fields.properties ?? {}) as Readonly<Record<string, string>>
  const { minRamMiB, properties } = startable(hints, own)
  return {
    minDiskGb: Math.ceil(source.size / GiB),
    minRamMb: minRamMiB,
    ...fields,
    properties: { ...properties, ...own },
  }
}

async function fingerprint(path: string): Promise<string> {
  const found = await stat(path, { bigint: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') throw new ServiceError('not-found', `there is no file ${path}`)
    throw error
  })
  return [found.dev, found.ino, found.size, found.mtimeNs].join(' ')
}

async function beginOrResume(
  state: UploadState,
  imprint: ImprintClient,
  fields: Readonly<Record<string, unknown>> & { readonly fileBytes: number },
  restart: boolean,
  signal: AbortSignal,
): Promise<Upload> {
  const earlier = state.uploadId
  if (earlier !== undefined && restart) await imprint.abandonUpload(earlier).catch(ignoreAbsent)
  if (earlier !== undefined && !restart) {
    const resumed = await imprint.beginUpload({ ...fields, resume: earlier }).catch(ignoreAbsent)
    if (resumed) {
      await reconcile(state, imprint, resumed, fields.fileBytes, signal)
      return resumed
    }
  }
  const upload = await imprint.beginUpload(fields)
  await state.begin(upload.id)
  return upload
}

function ignoreAbsent(error: unknown): undefined {
  if (isServiceError(error, 'not-found') || isServiceError(error, 'gone')) return undefined
  throw error
}

/** The result of the first, when both are done; the first failure of either, when both have stopped. */
async function both<T>(main: Promise<T>, beside: Promise<void>, stop: () => void): Promise<T> {
  const reasons: unknown[] = []
  const watch = (error: unknown) => {
    reasons.push(error)
    stop()
  }
  await Promise.allSettled([main.catch(watch), beside.catch(watch)])
  if (reasons.length > 0) throw reasons[0]
  return main
}

/**
 * Asks the service about every chunk that the state says it holds. After a crash there, it may lack what it had not yet written
 * down; after one here, the state may say too much. What is lacking counts as not sent.
 */
async function reconcile(
  state: UploadState,
  imprint: ImprintClient,
  upload: Upload,
  fileBytes: number,
  signal: AbortSignal,
): Promise<void> {
  const chunks = Math.ceil(fileBytes / upload.chunkBytes)
  for (let first = 0; first < chunks; first += RECONCILED_AT_ONCE) {
    const records = await state.read(first, Math.min(RECONCILED_AT_ONCE, chunks - first))
    const sent: number[] = []
    for (let at = 0; at < records.length; at += RECORD_BYTES) if (records[at] === 2) sent.push(at)
    if (sent.length === 0) continue
    const digests = Buffer.concat(sent.map((at) => records.subarray(at + 1, at + RECORD_BYTES)))
    const lacking = await persist(TRIES, signal, () => imprint.lacks(upload.id, digests, signal))
    if (!lacking.includes(1)) continue
    for (const [index, at] of sent.entries()) if (lacking[index] === 1) records.fill(0, at, at + RECORD_BYTES)
    await state.record(first, records)
  }
}

async function commit(
  state: UploadState,
  imprint: ImprintClient,
  upload: Upload,
  source: BlockSource,
  signal: AbortSignal,
  sendAgain: () => Promise<unknown>,
): Promise<Image> {
  const chunks = Math.ceil(source.size / upload.chunkBytes)
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await persist(TRIES, signal, () => imprint.commitUpload(upload.id, state.layout(chunks), signal))
    } catch (error) {
      if (!isServiceError(error, 'conflict') || attempt === COMMITS) throw error
      await reconcile(state, imprint, upload, source.size, signal)
      await sendAgain()
    }
  }
}
