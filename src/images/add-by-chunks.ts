import { randomUUID } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import { isServiceError, ServiceError } from '../base/errors.ts'
import type { CatalogReader, DocumentWriter, ImageRecord } from '../store/catalog/catalog.ts'
import type { ChunkUpload, Ingested } from '../store/chunks/chunk-store.ts'
import type { WireChunk } from '../store/content/encode-chunks.ts'
import { assertCounts, newImageFrom } from './attributes.ts'
import { requestDigests, startDigests } from './complete-digests.ts'
import { createImage } from './create-image.ts'
import { deleteImage } from './delete-image.ts'
import { showImage } from './find-image.ts'
import { authorizeService } from './policy.ts'
import type { ImagePorts } from './ports.ts'
import { type ProjectQuota, quotaOf, storableBytes } from './quotas.ts'
import { abandonTransfer, beginTransfer, completeTransfer, declaredOf, inTheEnd, type Transfer, tooLarge } from './transfer.ts'

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
/** A commit that runs. */
interface Commit {
  readonly work: Promise<ImageRecord>
  /** Ends it while the layout comes in, which takes as long as the client likes; null: that has been read whole. */
  readonly reading: AbortController | null
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
/** Index of uploads that are not committed, by project. */
const OPEN = 'open'
/** Of those, expired ones included that the next sweep takes. */
const MAX_LISTED = 2 * MAX_SESSIONS
/** Sessions whose handle on the store is kept between requests. */
const MAX_HANDLES = 1000
/** Chunks that the store takes at a time: with 64 KiB each, what one request holds in memory. */
const PUT_AT_ONCE = 16

/**
 * Images that arrive as chunks, from a client that asks first which ones are lacking. One upload belongs to one project, which
 * learns by it of no other project's chunks. It can be taken up again for a week, also after a restart of either side.
 *
 * Requests for one upload run side by side, so a session that was read is old news at the next `await`: every change is made to
 * the document as it stands then, inside `catalog.write`, and says only what it changes. A commit is noted in `#commits` before
 * its first write; whoever takes sessions away looks there inside its own write, so one of the two sees the other. What a commit
 * waits for from its client, the layout, can be broken off: a client that hangs keeps nobody from giving the upload up.
 */
export class ChunkUploads {
  readonly #ports: ImagePorts
  readonly #handles = new Map<string, ChunkUpload>()
  readonly #commits = new Map<string, Commit>()

  constructor(ports: ImagePorts) {
    this.#ports = ports
  }

  /**
   * What an upload already under way needs against the project's limits is counted here, and counted for good at the commit.
   * @throws ServiceError `denied`, `invalid-request`, `too-large`, `over-quota`, `too-many-requests`
   */
  async begin(caller: Caller, wanted: WantedUpload): Promise<UploadView> {
    const projectId = await this.#assertWanted(caller, wanted)
    const { catalog, chunks, now } = this.#ports
    const quota = await quotaOf(this.#ports, projectId)
    await assertRoom(catalog, projectId, quota, wanted.fileBytes, now()) // before the store is asked to write anything
    const upload = await chunks.beginUpload({ owner: projectId })
    const imageId = typeof wanted.image.id === 'string' ? wanted.image.id : randomUUID()
    const fresh = { ...wanted, id: upload.id, projectId, imageId, hasRecord: false, isCommitted: false, touchedAt: now() }
    try {
      await catalog.write(async (tx) => {
        await assertRoom(tx, projectId, quota, wanted.fileBytes, now()) // again, where no other upload can begin meanwhile
        await putSession(tx.documents, fresh)
      })
    } catch (error) {
      await inTheEnd(() => upload.abandon())
      throw error
    }
    this.#keep(upload)
    return this.#view(fresh)
  }

  /** Takes up an upload, with what is said of the image now. @throws ServiceError `not-found`, and as `begin` */
  async resume(caller: Caller, id: string, wanted: WantedUpload): Promise<UploadView> {
    const session = await this.#session(caller, id)
    if (!session.isCommitted) await this.#handle(session)
    if (wanted.fileBytes !== session.fileBytes || wanted.image.disk_format !== session.image.disk_format) {
      throw new ServiceError('conflict', `upload ${id} is of another file: begin a new one`, { fileBytes: session.fileBytes })
    }
    await this.#assertWanted(caller, wanted)
    const taken = await this.#change(id, (now) => {
      if (now.isCommitted || this.#commits.has(id)) return {} // its image is what was said before
      const imageId = typeof wanted.image.id === 'string' ? wanted.image.id : now.imageId
      if (now.hasRecord && imageId !== now.imageId) {
        const message = `upload ${id} has begun to make image ${now.imageId}: commit it as that, or give it up`
        throw new ServiceError('conflict', message, { imageId: now.imageId })
      }
      return { ...wanted, imageId, touchedAt: this.#ports.now() }
    })
    return this.#view(taken)
  }

  /** @returns n bytes for n × 32, 1 = to be sent. @throws ServiceError `not-found` */
  async lacks(caller: Caller, id: string, digests: Uint8Array): Promise<Uint8Array> {
    const session = await this.#session(caller, id)
    await this.#touch(session)
    return (await this.#handle(session)).lacks(digests)
  }

  /** @throws ServiceError `not-found`; `invalid-request` where bytes and digest differ; what came before stays */
  async put(caller: Caller, id: string, chunks: AsyncIterable<WireChunk>): Promise<void> {
    const session = await this.#session(caller, id)
    await this.#touch(session)
    const upload = await this.#handle(session)
    let waiting: WireChunk[] = []
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
   * @throws ServiceError `not-found`, also where the upload is given up while `layout` comes in; `conflict` naming a chunk that
   *   was never sent; `invalid-image`; `over-quota` …; nothing is left of the image then
   */
  async commit(caller: Caller, id: string, layout: (chunks: number) => AsyncIterable<Uint8Array | null>): Promise<ImageRecord> {
    await this.#session(caller, id)
    const running = this.#commits.get(id)
    if (running) return running.work
    const reading = new AbortController()
    const isRead = () => void this.#commits.set(id, { work, reading: null })
    const work: Promise<ImageRecord> = this.#commit(caller, id, (chunks) =>
      untilAborted(layout(chunks), reading.signal, isRead),
    ).finally(() => this.#commits.delete(id))
    this.#commits.set(id, { work, reading })
    return work
  }

  /**
   * Gives up, and ends a commit whose layout is still coming in.
   * @throws ServiceError `not-found`; `conflict` while a commit that has its layout is making the image
   */
  async abandon(caller: Caller, id: string): Promise<void> {
    await this.#session(caller, id)
    await this.#breakOff(id)
    await this.#deleteLeftRecord(caller, id)
    const { isCommitted } = await this.#ports.catalog.write(async ({ documents }) => {
      if (this.#commits.has(id)) {
        const message = `upload ${id} is being made into its image: wait for the commit, then delete the image if you do not want it`
        throw new ServiceError('conflict', message)
      }
      const found = await documents.get<Session>(KIND, id)
      if (!found) throw noSuchUpload()
      await documents.delete(KIND, id)
      return found.body
    })
    if (!isCommitted) await inTheEnd(() => this.#letGo(id))
    this.#handles.delete(id)
  }

  /**
   * Forgets uploads that nobody touched for a week; until then they are refused by their date. What they hold of the store goes
   * with the collection that comes after. To be called now and then.
   * @returns how many
   */
  sweep(): Promise<number> {
    return this.#ports.catalog.write(({ documents }) => documents.deleteExpired(KIND, this.#ports.now()))
  }

  /** The image that a commit had begun to make when a crash cut it short. */
  async #deleteLeftRecord(caller: Caller, id: string): Promise<void> {
    const session = (await this.#ports.catalog.documents.get<Session>(KIND, id))?.body
    if (!session?.hasRecord || session.isCommitted || this.#commits.has(id)) return
    const image = await this.#ports.catalog.images.get(session.imageId)
    if (image?.status === 'queued') await deleteImage(this.#ports, caller, image.id).catch(absentIsFine)
  }

  /** A commit that has not read its layout; when it resolves, what that had begun is undone. */
  async #breakOff(id: string): Promise<void> {
    const running = this.#commits.get(id)
    if (!running?.reading) return
    const message = `upload ${id} was given up before the layout of its file had come; begin a new one`
    running.reading.abort(new ServiceError('not-found', message))
    await running.work.catch(() => undefined) // whoever committed is told
  }

  async #commit(caller: Caller, id: string, layout: (chunks: number) => AsyncIterable<Uint8Array | null>): Promise<ImageRecord> {
    const ports = this.#ports
    const begun = await this.#change(id, () => ({ touchedAt: ports.now() }))
    if (begun.isCommitted) return showImage(ports, caller, begun.imageId)
    const upload = await this.#handle(begun)
    const left = begun.hasRecord ? await ports.catalog.images.get(begun.imageId) : undefined
    const isOurs = left?.status === 'queued'
    const session = isOurs
      ? begun
      : await this.#change(id, () => ({ ...(left?.status === 'deleted' ? anew() : {}), hasRecord: true }))
    const wanted = newImageFrom({ ...session.image, id: session.imageId })
    if (!isOurs) {
      await createImage(ports, caller, { ...wanted, protected: false }).catch(async (error: unknown) => {
        await this.#change(id, () => ({ hasRecord: false })) // an image that has this id is another's
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
    const image = await this.#complete(caller, session, wanted.protected, transfer, async () => {
      ingested = await upload.commit(session.fileBytes, layout(Math.ceil(session.fileBytes / ports.chunks.chunkBytes)))
      return ingested
    }).catch(async (error: unknown) => {
      await abandonTransfer(ports, caller, transfer, ingested, error)
      const kept = await ports.catalog.images.get(session.imageId)
      // the record may have been written although its writer was told that it failed
      if (kept && kept.manifest !== null && kept.manifest === ingested?.manifest) {
        this.#handles.delete(id)
        throw error
      }
      await deleteImage(ports, caller, session.imageId).catch(absentIsFine)
      if (ingested) await this.#forget(id)
      else await this.#change(id, anew)
      throw error
    })
    // the image is there: what is still to be noted of the upload, the next request to it would find out as well
    this.#handles.delete(id)
    await inTheEnd(async () => {
      await this.#change(id, committed).catch(absentIsFine)
    })
    startDigests(ports)
    return image
  }

  async #complete(
    caller: Caller,
    session: Session,
    isProtected: boolean,
    transfer: Transfer,
    commit: () => Promise<Ingested>,
  ): Promise<ImageRecord> {
    const ports = this.#ports
    const ingested = await commit()
    const { manifest, fileBytes } = ingested
    const file = await ports.chunks.open(manifest)
    const { virtualBytes, warnings } = await ports.examine(file, declaredOf(transfer.image))
    const changes: Partial<ImageRecord> = {
      status: 'active',
      manifest,
      size: fileBytes,
      virtualSize: virtualBytes,
      protected: isProtected,
      notes: { ...session.source, ...(warnings.length > 0 ? { warnings: warnings.join(' ') } : {}) },
    }
    return completeTransfer(ports, caller, transfer, ingested, changes, (tx) => requestDigests(tx, session.imageId, manifest))
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

  async #session(caller: Caller, id: string): Promise<Session> {
    authorizeService(caller, 'create')
    const found = await this.#ports.catalog.documents.get<Session>(KIND, id)
    const isTheirs = found?.body.projectId === caller.projectId
    if (!found || !isTheirs || isExpired(found.body, this.#ports.now())) throw noSuchUpload()
    return this.#afterCrash(caller, found.body)
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
      return this.#change(session.id, committed)
    }
    if (image?.status === 'queued') await deleteImage(this.#ports, caller, session.imageId)
    await this.#forget(session.id)
    throw noSuchUpload()
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
    if (now - session.touchedAt >= TOUCH_EVERY_MS) await this.#change(session.id, () => ({ touchedAt: now }))
  }

  /**
   * Changes a session as it stands now, whoever changed it since it was read.
   * @param change gets it, and says what becomes different
   * @throws ServiceError `not-found`, and what `change` throws
   */
  #change(id: string, change: (now: Session) => Partial<Session>): Promise<Session> {
    return this.#ports.catalog.write(async ({ documents }) => {
      const found = await documents.get<Session>(KIND, id)
      if (!found) throw noSuchUpload()
      const changed = { ...found.body, ...change(found.body) }
      await putSession(documents, changed)
      return changed
    })
  }

  /** The session is no more; what it held of the store is another's, or nothing. */
  async #forget(id: string): Promise<void> {
    this.#handles.delete(id)
    await this.#ports.catalog.write(({ documents }) => documents.delete(KIND, id))
  }

  /** What the upload holds of the store. */
  async #letGo(id: string): Promise<void> {
    const upload = this.#handles.get(id) ?? this.#ports.chunks.resumeUpload(id)
    try {
      await (await upload).abandon()
    } catch (error) {
      if (!isServiceError(error, 'not-found')) throw error
    }
  }

  #view({ id, imageId, fileBytes, touchedAt }: Session): UploadView {
    return { id, imageId, fileBytes, chunkBytes: this.#ports.chunks.chunkBytes, expiresAt: touchedAt + KEEP_MS }
  }
}

/**
 * Whether one more upload of so many bytes fits beside those under way.
 * @throws ServiceError `too-many-requests`, `over-quota`
 */
async function assertRoom(
  { documents, images }: CatalogReader,
  projectId: string,
  quota: ProjectQuota,
  fileBytes: number,
  now: number,
): Promise<void> {
  const usage = await images.usage(projectId) // first: a commit that begins meanwhile is rather in neither sum than in both
  const found = await documents.list<Session>(KIND, { index: { name: OPEN, value: projectId }, limit: MAX_LISTED })
  const open = found.map(({ body }) => body).filter((session) => !isExpired(session, now))
  if (open.length >= MAX_SESSIONS) {
    const message = `the project has ${open.length} uploads under way; finish or give up some of them first`
    throw new ServiceError('too-many-requests', message)
  }
  let bytes = fileBytes
  for (const session of open) {
    const image = session.hasRecord ? await images.get(session.imageId) : undefined
    if (image?.status !== 'saving') bytes += session.fileBytes // a commit has its bytes among those that are used
  }
  const room = storableBytes(quota, usage)
  if (bytes <= room) return
  const message = `the project has room for ${room} bytes and its uploads would need ${bytes}; delete something, or ask an administrator`
  throw new ServiceError('over-quota', message, { room, bytes })
}

/**
 * The items as they come, until `signal` aborts: then it ends at once with that reason, and leaves a sender that says nothing to
 * itself.
 * @param whenWhole called after the last item, from where on `signal` changes nothing
 */
async function* untilAborted<T>(items: AsyncIterable<T>, signal: AbortSignal, whenWhole: () => void): AsyncGenerator<T> {
  const iterator = items[Symbol.asyncIterator]()
  let stop: ((reason: unknown) => void) | undefined
  signal.addEventListener('abort', () => stop?.(signal.reason), { once: true })
  let isWhole = false
  try {
    for (;;) {
      signal.throwIfAborted()
      const next = await new Promise<IteratorResult<T>>((resolve, reject) => {
        stop = reject
        iterator.next().then(resolve, reject)
      })
      if (next.done) break
      yield next.value
    }
    signal.throwIfAborted()
    isWhole = true
    whenWhole()
  } finally {
    if (!isWhole) void Promise.resolve(iterator.return?.()).catch(() => undefined)
  }
}

const putSession = async (documents: DocumentWriter, session: Session): Promise<void> => {
  await documents.put(KIND, session.id, session, {
    indexes: session.isCommitted ? {} : { [OPEN]: session.projectId },
    expiresAt: session.touchedAt + KEEP_MS,
  })
}

const isExpired = ({ touchedAt }: Session, now: number): boolean => touchedAt + KEEP_MS < now

/** A deleted image leaves its id behind for ever: the next commit makes another. */
const anew = (): Partial<Session> => ({ imageId: randomUUID(), hasRecord: false })

/** What a commit said again needs; what was said of the image stands in its record by now. */
const committed = ({ image }: Session): Partial<Session> => ({
  hasRecord: true,
  isCommitted: true,
  image: { disk_format: image.disk_format },
  source: {},
})

function absentIsFine(error: unknown): void {
  if (!isServiceError(error, 'not-found')) throw error
}

const noSuchUpload = (): ServiceError =>
  new ServiceError(
    'not-found',
    'there is no such upload: it was given up, or it is not your project that began it; begin a new one',
  )
