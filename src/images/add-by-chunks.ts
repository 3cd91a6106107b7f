import { randomUUID } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import { isServiceError, ServiceError } from '../base/errors.ts'
import type { ImageRecord } from '../store/catalog/catalog.ts'
import type { ChunkUpload, Ingested, UploadedChunk } from '../store/chunks/chunk-store.ts'
import { assertCounts, newImageFrom } from './attributes.ts'
import { requestDigests, startDigests } from './complete-digests.ts'
import { createImage } from './create-image.ts'
import { deleteImage } from './delete-image.ts'
import { showImage } from './find-image.ts'
import { authorizeService } from './policy.ts'
import type { ImagePorts } from './ports.ts'
import { quotaOf, storableBytes } from './quotas.ts'
import { abandonTransfer, beginTransfer, completeTransfer, declaredOf, tooLarge } from './transfer.ts'

/** What a client says before it sends anything. */
export interface WantedUpload {
  /** Bytes of the file that the image will be. */
  readonly fileBytes: number
  /** Members of the image in the words of the image API, `disk_format` among them. */
  readonly image: Readonly<Record<string, unknown>>
  /** Where the disk came from: kept as notes of the image. */
  readonly source: Readonly<Record<string, string | number>>
}

interface Session extends WantedUpload {
  readonly id: string
  readonly projectId: string
  /** Decided at the beginning, so that a commit said twice makes one image. */
  readonly imageId: string
  /** A commit has begun: a queued image of this id is ours, left by a crash. */
  readonly hasRecord: boolean
  readonly isCommitted: boolean
  /** Milliseconds since 1970. */
  readonly touchedAt: number
}
export interface UploadView {
  readonly id: string
  readonly imageId: string
  readonly chunkBytes: number
  readonly fileBytes: number
  /** Milliseconds since 1970. */
  readonly expiresAt: number
}

const KIND = 'upload-session'
const KEEP_MS = 7 * 24 * 3_600_000
const TOUCH_EVERY_MS = 3_600_000
/** Of one project, at once: each holds chunks that no image uses yet. */
const MAX_SESSIONS = 64
/** Sessions whose handle on the store is kept between requests. */
const MAX_HANDLES = 1000
/** Chunks that the store takes at a time: with 64 KiB each, what one request holds in memory. */
const PUT_AT_ONCE = 16

/**
 * Images that arrive as chunks, from a client that asks first which ones are lacking. One upload belongs to one project, which
 * learns by it of no other project's chunks. It can be taken up again for a week, also after a restart of either side.
 */
export class ChunkUploads {
  readonly #ports: ImagePorts
  readonly #handles = new Map<string, ChunkUpload>()
  readonly #touched = new Map<string, number>()
  readonly #commits = new Map<string, Promise<ImageRecord>>()

  constructor(ports: ImagePorts) {
    this.#ports = ports
  }

  /**
   * What an upload already under way needs against the project's limits is counted here, and counted for good at the commit.
   * @throws ServiceError `denied`, `invalid-request`, `too-large`, `over-quota`, `too-many-requests`
   */
  async begin(caller: Caller, wanted: WantedUpload): Promise<UploadView> {
    const projectId = await this.#assertWanted(caller, wanted)
    await this.sweep()
    const open = (await this.#sessionsOf(projectId)).filter(({ isCommitted }) => !isCommitted)
    if (open.length >= MAX_SESSIONS) {
      throw new ServiceError(
        'too-many-requests',
        `the project has ${open.length} uploads under way; finish or give up some of them first`,
      )
    }
    await this.#assertRoom(projectId, wanted.fileBytes + open.reduce((sum, { fileBytes }) => sum + fileBytes, 0))
    const upload = await this.#ports.chunks.beginUpload({ owner: projectId })
    const imageId = typeof wanted.image.id === 'string' ? wanted.image.id : randomUUID()
    const session = {
      ...wanted,
      id: upload.id,
      projectId,
      imageId,
      hasRecord: false,
      isCommitted: false,
      touchedAt: this.#ports.now(),
    }
    await this.#write(session)
    this.#keep(upload)
    return this.#view(session)
  }

  /** Takes up an upload, with what is said of the image now. @throws ServiceError `not-found`, and as `begin` */
  async resume(caller: Caller, id: string, wanted: WantedUpload): Promise<UploadView> {
    const session = await this.#session(caller, id)
    if (!session.isCommitted) await this.#handle(session)
    if (wanted.fileBytes !== session.fileBytes || wanted.image.disk_format !== session.image.disk_format) {
      throw new ServiceError('conflict', `upload ${id} is of another file: begin a new one`, { fileBytes: session.fileBytes })
    }
    await this.#assertWanted(caller, wanted)
    const imageId = typeof wanted.image.id === 'string' ? wanted.image.id : session.imageId
    const taken = session.isCommitted ? session : { ...session, ...wanted, imageId, touchedAt: this.#ports.now() }
    await this.#write(taken)
    return this.#view(taken)
  }

  /** @returns n bytes for n × 32, 1 = to be sent. @throws ServiceError `not-found` */
  async lacks(caller: Caller, id: string, digests: Uint8Array): Promise<Uint8Array> {
    const session = await this.#session(caller, id)
    await this.#touch(session)
    return (await this.#handle(session)).lacks(digests)
  }

  /** @throws ServiceError `not-found`; `invalid-request` where bytes and digest differ; what came before stays */
  async put(caller: Caller, id: string, chunks: AsyncIterable<UploadedChunk>): Promise<void> {
    const upload = await this.#handle(await this.#session(caller, id))
    let waiting: UploadedChunk[] = []
    for await (const chunk of chunks) {
      waiting.push(chunk)
      if (waiting.length < PUT_AT_ONCE) continue
      await upload.put(waiting)
      waiting = []
    }
    if (waiting.length > 0) await upload.put(waiting)
  }

  /**
   * Makes the image: record, quota, chunks, a look at the bytes, active; in this order, so that an upload which does not fit
   * can be committed again when there is room. md5 and sha512 follow behind. Said twice, it answers twice the same.
   * @param layout the file's chunks in order: a digest, or null for zeros
   * @throws ServiceError `not-found`; `conflict` naming a chunk that was never sent; `invalid-image`; `over-quota` …; nothing
   *   is left of the image then
   */
  async commit(caller: Caller, id: string, layout: (chunks: number) => AsyncIterable<Uint8Array | null>): Promise<ImageRecord> {
    const session = await this.#session(caller, id)
    const running = this.#commits.get(id)
    if (running) return running
    if (session.isCommitted) return showImage(this.#ports, caller, session.imageId)
    const work = this.#commit(caller, session, layout).finally(() => this.#commits.delete(id))
    this.#commits.set(id, work)
    return work
  }

  /** Gives up. @throws ServiceError `not-found` */
  async abandon(caller: Caller, id: string): Promise<void> {
    await this.#forget(await this.#session(caller, id))
  }

  /** Lets go of uploads that nobody touched for a week. */
  async sweep(): Promise<void> {
    const sessions = await this.#ports.catalog.documents.list<Session>(KIND)
    const now = this.#ports.now()
    for (const { body } of sessions) {
      if (body.touchedAt + KEEP_MS < now && !this.#commits.has(body.id)) await this.#forget(body)
    }
  }

  async #commit(
    caller: Caller,
    begun: Session,
    layout: (chunks: number) => AsyncIterable<Uint8Array | null>,
  ): Promise<ImageRecord> {
    const ports = this.#ports
    const upload = await this.#handle(begun)
    const left = begun.hasRecord ? await ports.catalog.images.get(begun.imageId) : undefined
    const session = left?.status === 'deleted' ? anew(begun) : begun
    const wanted = newImageFrom({ ...session.image, id: session.imageId })
    if (left?.status !== 'queued') {
      await this.#write({ ...session, hasRecord: true })
      await createImage(ports, caller, { ...wanted, protected: false }).catch(async (error: unknown) => {
        await this.#write({ ...session, hasRecord: false }) // an image that has this id is another's
        throw error
      })
    }
    let ingested: Ingested | undefined
    const transfer = await beginTransfer(ports, caller, session.imageId, 'upload', session.fileBytes).catch(
      async (error: unknown) => {
        await deleteImage(ports, caller, session.imageId)
        throw error
      },
    )
    try {
      ingested = await upload.commit(session.fileBytes, layout(Math.ceil(session.fileBytes / ports.chunks.chunkBytes)))
      const { virtualBytes, warnings } = await ports.examine(
        await ports.chunks.open(ingested.manifest),
        declaredOf(transfer.image),
      )
      const { manifest, fileBytes } = ingested
      await ports.catalog.write((tx) => requestDigests(tx, session.imageId, manifest))
      const image = await completeTransfer(ports, caller, transfer, ingested, {
        status: 'active',
        manifest,
        size: fileBytes,
        virtualSize: virtualBytes,
        protected: wanted.protected,
        notes: { ...session.source, ...(warnings.length > 0 ? { warnings: warnings.join(' ') } : {}) },
      })
      this.#handles.delete(session.id)
      await this.#write(committed(session, ports.now()))
      startDigests(ports)
      return image
    } catch (error) {
      await abandonTransfer(ports, caller, transfer, ingested, error)
      await deleteImage(ports, caller, session.imageId).catch((alsoFailed: unknown) => {
        if (!isServiceError(alsoFailed, 'not-found')) throw alsoFailed
      })
      if (ingested) await this.#forget({ ...session, isCommitted: true })
      else await this.#write(anew(session))
      throw error
    }
  }

  async #assertWanted(caller: Caller, { fileBytes, image }: WantedUpload): Promise<string> {
    authorizeService(caller, 'create')
    if (caller.projectId === null) {
      throw new ServiceError('denied', 'an image belongs to a project and your token has none; log in with a project')
    }
    const wanted = newImageFrom(image)
    if (wanted.visibility === 'public') authorizeService(caller, 'create-public')
    assertCounts(wanted)
    const { maxImageBytes } = this.#ports.settings
    if (fileBytes < 1) throw new ServiceError('invalid-request', 'an image has at least one byte')
    if (fileBytes > maxImageBytes) throw tooLarge(maxImageBytes)
    return caller.projectId
  }

  async #assertRoom(projectId: string, bytes: number): Promise<void> {
    const quota = await quotaOf(this.#ports, projectId)
    const room = storableBytes(quota, await this.#ports.catalog.images.usage(projectId))
    if (bytes <= room) return
    const message = `the project has room for ${room} bytes and its uploads would need ${bytes}; delete something, or ask an administrator`
    throw new ServiceError('over-quota', message, { room, bytes })
  }

  async #session(caller: Caller, id: string): Promise<Session> {
    authorizeService(caller, 'create')
    const found = await this.#ports.catalog.documents.get<Session>(KIND, id)
    if (found && found.body.projectId === caller.projectId) return this.#afterCrash(caller, found.body)
    throw noSuchUpload()
  }

  /**
   * A crash in the middle of a commit may have come after the store had taken the upload's chunks for its image, and so knows
   * the upload no more. Where the image was recorded, the upload is committed; otherwise nothing of it is left.
   */
  async #afterCrash(caller: Caller, session: Session): Promise<Session> {
    if (!session.hasRecord || session.isCommitted || this.#commits.has(session.id)) return session
    try {
      await this.#handle(session)
      return session
    } catch (error) {
      if (!isServiceError(error, 'not-found')) throw error
    }
    const image = await this.#ports.catalog.images.get(session.imageId)
    if (image && image.manifest !== null) {
      const settled = committed(session, this.#ports.now())
      await this.#write(settled)
      return settled
    }
    if (image?.status === 'queued') await deleteImage(this.#ports, caller, session.imageId)
    await this.#forget({ ...session, isCommitted: true })
    throw noSuchUpload()
  }

  async #sessionsOf(projectId: string): Promise<readonly Session[]> {
    const index = { name: 'project', value: projectId }
    return (await this.#ports.catalog.documents.list<Session>(KIND, { index })).map(({ body }) => body)
  }

  /** One for each upload while the process lives: it knows what is not yet durable. */
  async #handle(session: Session): Promise<ChunkUpload> {
    const known = this.#handles.get(session.id)
    const upload = known ?? (await this.#ports.chunks.resumeUpload(session.id))
    return this.#keep(this.#handles.get(session.id) ?? upload)
  }

  #keep(upload: ChunkUpload): ChunkUpload {
    this.#handles.delete(upload.id)
    this.#handles.set(upload.id, upload)
    const [oldest] = this.#handles.keys()
    if (this.#handles.size > MAX_HANDLES && oldest) this.#handles.delete(oldest)
    return upload
  }

  async #touch(session: Session): Promise<void> {
    const now = this.#ports.now()
    const last = this.#touched.get(session.id) ?? session.touchedAt
    if (now - last < TOUCH_EVERY_MS) return
    this.#touched.set(session.id, now)
    await this.#write({ ...session, touchedAt: now })
  }

  async #write(session: Session): Promise<void> {
    await this.#ports.catalog.write(({ documents }) =>
      documents.put(KIND, session.id, session, { indexes: { project: session.projectId } }),
    )
  }

  async #forget(session: Session): Promise<void> {
    if (!session.isCommitted) {
      const upload = await this.#handle(session).catch((error: unknown) => {
        if (!isServiceError(error, 'not-found')) throw error
        return undefined
      })
      await upload?.abandon()
    }
    this.#handles.delete(session.id)
    this.#touched.delete(session.id)
    await this.#ports.catalog.write(({ documents }) => documents.delete(KIND, session.id))
  }

  #view({ id, imageId, fileBytes, touchedAt }: Session): UploadView {
    return { id, imageId, fileBytes, chunkBytes: this.#ports.chunks.chunkBytes, expiresAt: touchedAt + KEEP_MS }
  }
}

/** A deleted image leaves its id behind for ever: the next commit makes another. */
const anew = (session: Session): Session => ({ ...session, imageId: randomUUID(), hasRecord: false })

/** What a commit said again needs; what was said of the image stands in its record by now. */
const committed = (session: Session, at: number): Session => ({
  ...session,
  hasRecord: true,
  isCommitted: true,
  image: { disk_format: session.image.disk_format },
  source: {},
  touchedAt: at,
})

const noSuchUpload = (): ServiceError =>
  new ServiceError(
    'not-found',
    'there is no such upload: it was given up, or it is not your project that began it; begin a new one',
  )
