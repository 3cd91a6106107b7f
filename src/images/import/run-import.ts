import type { Caller } from '../../base/caller.ts'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { failpoint } from '../../base/failpoint.ts'
import { MiB } from '../../base/units.ts'
import type { BlockSource } from '../../disk/block/block-source.ts'
import { formats, openImage } from '../../disk/formats/index.ts'
import type { CatalogWriter, ImageRecord } from '../../store/catalog/catalog.ts'
import type { Lease } from '../../store/chunks/chunk-store.ts'
import { recordAudit } from '../audit.ts'
import type { Declared, ImagePorts } from '../ports.ts'
import { assertWithinQuota, quotaOf } from '../quotas.ts'
import { failureText, inTheEnd, ownerOfChunks } from '../transfer.ts'
import { describedHardware } from './described-hardware.ts'
import { type HeldImport, heldImage, reserve, reservedBytesOf, watch } from './held-image.ts'
import { type InsideFile, insideOf, leftOpen } from './inside-file.ts'
import { callerOf, type ParentDisk, parentOf } from './parent-disk.ts'
import { downloadedFile, type SourceFile, stagedFile } from './source-file.ts'
import { changeTask, findTask, type TaskRecord } from './tasks.ts'

/** How often an import is begun again after the service was stopped or killed in the middle of it. */
const MAX_ATTEMPTS = 3

/** Notes by which an import holds its image, and by which clients of Glance follow it. */
export const importingNotes = (taskId: string, store: string) => ({
  importTask: taskId,
  importingToStores: store,
  failedImport: '',
})

/**
 * Imports what a task asks for: file → examined → its disk kept, as raw chunks → active; or back to queued with the reason,
 * in the notes of the image and in the task. A file that cannot be opened as a disk here is kept as it is.
 *
 * Nothing is left behind by a failure. When the service stops (`stopping`) or dies on the way, image and task stay as they
 * are, and the next start begins the import again.
 *
 * @param store the name under which clients know the store
 */
export async function runImport(
  ports: ImagePorts,
  caller: Caller,
  taskId: string,
  store: string,
  stopping: AbortSignal,
): Promise<void> {
  const held = await takeUp(ports, taskId)
  if (!held) return
  failpoint('import:started')
  const following = watch(ports, held, stopping)
  const leases: Lease[] = []
  let inside: InsideFile | undefined
  const letGo = held.image.stagedManifest === null ? () => {} : ports.readers.hold(held.image.stagedManifest)
  let parent: ParentDisk | undefined
  try {
    if (held.task.attempts > MAX_ATTEMPTS) {
      throw new ServiceError(
        'unavailable',
        `the import was begun ${MAX_ATTEMPTS} times and the service stopped in each; import it again`,
      )
    }
    const file = await sourceOf(ports, held, following)
    if (file.lease) leases.push(file.lease)
    const said = declaredBy(held.image)
    parent = await parentOf(ports, held.task)
    inside = await insideOf(ports, held, await ports.chunks.open(file.manifest), said, following)
    leases.push(...inside.leases)
    failpoint('import:unpacked')
    const { around } = inside
    const declared = around ? { ...said, containerFormat: 'bare' } : said
    const as = { ...declared, ...(parent ? { parentBytes: parent.bytes } : {}) }
    const { virtualBytes, warnings } = await ports.examine(leftOpen(inside.file), as, following.signal)
    await around?.appliance?.verify({ signal: following.signal })
    const kept = await keep(ports, held, file, inside, declared, parent, following)
    if (kept.lease) leases.push(kept.lease)
    failpoint('import:ingested')
    const maySet = (name: string) => ports.protections.check(callerOf(held.task), name, 'create')
    await finish(ports, caller, held, file.fileBytes, (image) => {
      const described = around?.appliance && describedHardware(around.appliance, image, virtualBytes, maySet)
      return {
        ...kept.changes,
        ...described?.changes,
        ...(around ? { containerFormat: declared.containerFormat } : {}),
        virtualSize: virtualBytes,
        notes: {
          ...file.notes,
          originFormat: declared.diskFormat,
          ...(around ? originOf(around) : {}),
          ...noteOf([...warnings, ...(described?.warnings ?? [])]),
          ...(parent ? { parentImage: parent.imageId } : {}),
        },
      }
    })
    failpoint('import:active')
    await dropScratch(ports, held.image, file, kept, inside)
  } catch (error) {
    for (const lease of leases) await lease.abandon().catch(() => undefined) // ends with the process at the latest
    if (stopping.aborted && isServiceError(error, 'cancelled')) return // goes on at the next start
    await inTheEnd(() => fail(ports, caller, held, store, error)) // a full disk must not leave the image "importing"
    if (!isServiceError(error)) throw error
  } finally {
    letGo()
    await inside?.file.close()
    parent?.release()
    await following.stop()
  }
}

/** Ends an import that cannot be begun, as one that failed. */
export async function abandonImport(
  ports: ImagePorts,
  caller: Caller,
  taskId: string,
  store: string,
  error: unknown,
): Promise<void> {
  const held = await takeUp(ports, taskId)
  if (held) await fail(ports, caller, held, store, error)
}

/** Begins, or begins again. `undefined` where there is nothing to do: the image is gone, or the task is finished. */
async function takeUp(ports: ImagePorts, taskId: string): Promise<HeldImport | undefined> {
  const owner = await ownerOfTask(ports, taskId)
  const quota = await quotaOf(ports, owner)
  return ports.catalog.write(async (tx) => {
    const task = await findTask(tx, taskId)
    if (!task || task.status === 'success' || task.status === 'failure') return undefined
    const image = await tx.images.get(task.imageId)
    const at = ports.now()
    if (image?.status !== 'importing' || image.notes.importTask !== taskId) {
      await changeTask(tx, taskId, { status: 'failure', message: 'The image was deleted.', updatedAt: at })
      return undefined
    }
    const begun: TaskRecord = { ...task, status: 'processing', attempts: task.attempts + 1, bytes: 0, updatedAt: at }
    await changeTask(tx, taskId, begun)
    return { task: begun, image, quota }
  })
}

async function ownerOfTask({ catalog }: ImagePorts, taskId: string): Promise<string | null> {
  const task = await findTask(catalog, taskId)
  return (task && (await catalog.images.get(task.imageId))?.owner) ?? null
}

type Following = ReturnType<typeof watch>

function sourceOf(ports: ImagePorts, held: HeldImport, following: Following): Promise<SourceFile> {
  const { method } = held.task.request
  switch (method.name) {
    case 'glance-direct':
      return stagedFile(ports, held, method.digest, following)
    case 'web-download':
      return downloadedFile(ports, held, method.uri, method.digest, following)
    case 'copy-image':
      throw new Error('copy-image begins no task where there is one store')
  }
}

function declaredBy({ diskFormat, containerFormat, id }: ImageRecord): Declared {
  if (diskFormat !== null && containerFormat !== null) return { diskFormat, containerFormat }
  throw new ServiceError(
    'conflict',
    `image ${id} lost its disk_format or container_format while it was imported; set both, and import again`,
  )
}

interface Kept {
  readonly changes: Pick<ImageRecord, 'manifest' | 'size' | 'checksum' | 'hashAlgo' | 'hashValue'> & {
    readonly diskFormat?: string
  }
  /** The file itself is kept, not a disk out of it. */
  readonly isFile: boolean
  readonly lease?: Lease
}

/** The disk in the file, as raw chunks; the file itself where it is the disk already, or cannot be opened here. */
async function keep(
  ports: ImagePorts,
  held: HeldImport,
  file: SourceFile,
  { file: inner, around }: InsideFile,
  { diskFormat, containerFormat }: Declared,
  parent: ParentDisk | undefined,
  { signal }: Following,
): Promise<Kept> {
  const isOpened = containerFormat === 'bare' && diskFormat !== 'raw' && formats.some(({ name }) => name === diskFormat)
  if (!isOpened && parent)
    throw new ServiceError('unsupported', `a ${diskFormat} in ${containerFormat} is a difference to nothing`)
  if (!isOpened && !around) {
    await reserve(ports, held, file.fileBytes)
    return { changes: contents(file.manifest, file.fileBytes, file.digests), isFile: true }
  }
  const disk = isOpened ? await openedDisk(leftOpen(inner), diskFormat, parent) : leftOpen(inner)
  try {
    await reserve(ports, held, disk.size)
    const { manifest, fileBytes, digests, lease } = await ports.chunks.ingestDisk(disk, {
      owner: ownerOfChunks(held.image),
      digests: ['md5', 'sha512'],
      maxBytes: ports.settings.maxImageBytes,
      signal,
    })
    return {
      changes: { ...contents(manifest, fileBytes, digests), diskFormat: isOpened ? 'raw' : diskFormat },
      isFile: false,
      lease,
    }
  } finally {
    await disk.close()
  }
}

async function openedDisk(file: BlockSource, diskFormat: string, parent: ParentDisk | undefined): Promise<BlockSource> {
  const below = await parent?.open()
  return openImage(diskFormat, file, { parent: below }).catch(async (error: unknown) => {
    await below?.close()
    throw error
  })
}

/** What lay around the disk, and as what it lay there. */
function originOf({ layers }: NonNullable<InsideFile['around']>): ImageRecord['notes'] {
  const member = layers.findLast((layer) => layer.member !== undefined)?.member
  return {
    originContainer: layers.map(({ kind }) => kind).join(' > '),
    ...(member === undefined ? {} : { originMember: member.slice(0, MAX_NOTE_CHARACTERS) }),
  }
}
const MAX_NOTE_CHARACTERS = 255

const contents = (manifest: string, size: number, { md5, sha512 }: SourceFile['digests']) => ({
  manifest,
  size,
  checksum: md5 ?? null,
  hashAlgo: sha512 === undefined ? null : 'sha512',
  hashValue: sha512 ?? null,
})
const noteOf = (warnings: readonly string[]): { readonly warnings?: string } =>
  warnings.length > 0 ? { warnings: warnings.join(' ') } : {}

/** The record names the bytes: from here on they are safe. @throws ServiceError `gone`, `over-quota` */
async function finish(
  ports: ImagePorts,
  caller: Caller,
  held: HeldImport,
  bytes: number,
  changesTo: (image: ImageRecord) => Partial<ImageRecord>,
): Promise<void> {
  await ports.catalog.write(async (tx) => {
    const image = await heldImage(tx, held)
    const changes = changesTo(image)
    const more = (changes.size ?? 0) - reservedBytesOf(image)
    if (more > 0) await assertWithinQuota(tx, image.owner, held.quota, { storedBytes: more })
    const at = ports.now()
    const stored = await tx.images.update(image.id, image.version, {
      ...changes,
      notes: settled(image, '', changes.notes ?? {}),
      status: 'active',
      stagedManifest: null,
      updatedAt: at,
    })
    await changeTask(tx, held.task.id, {
      status: 'success',
      bytes,
      message: `Copied ${Math.ceil(bytes / MiB)} MiB`,
      updatedAt: at,
    })
    await recordAudit(tx, caller, 'import', stored, at, { method: held.task.request.method.name, bytes: stored.size })
  })
}

/** The notes of an image that is no longer being imported. */
function settled(image: ImageRecord, failedStores: string, more: ImageRecord['notes']): ImageRecord['notes'] {
  const { importTask, reservedBytes, stagedMd5, stagedSha512, failure, ...notes } = image.notes
  return { ...notes, importingToStores: '', failedImport: failedStores, ...more }
}

/** Gives up what served on the way. Cut short here, the collector finds it by the records alone. */
async function dropScratch(
  ports: ImagePorts,
  image: ImageRecord,
  file: SourceFile,
  kept: Kept,
  inside: InsideFile,
): Promise<void> {
  for (const lease of inside.leases) await lease.abandon()
  if (kept.isFile) await file.lease?.release()
  else await file.lease?.abandon()
  await kept.lease?.release()
  if (!kept.isFile && image.stagedManifest !== null) await ports.chunks.drop(image.stagedManifest, ownerOfChunks(image))
}

/** Back to queued, with the reason. An image that was deleted meanwhile is left alone. */
async function fail(ports: ImagePorts, caller: Caller, held: HeldImport, store: string, error: unknown): Promise<void> {
  const failure = failureText(error)
  const staged = await ports.catalog.write(async (tx) => {
    const at = ports.now()
    await changeTask(tx, held.task.id, { status: 'failure', message: failure, updatedAt: at })
    const image = await stillHeld(tx, held)
    if (!image) return null
    await tx.images.update(image.id, image.version, {
      status: 'queued',
      size: null,
      virtualSize: null,
      stagedManifest: null,
      notes: settled(image, store, { failure }),
      updatedAt: at,
    })
    await recordAudit(tx, caller, 'import', image, at, { failure }, 'failure')
    return image.stagedManifest
  })
  if (staged !== null) await ports.chunks.drop(staged, ownerOfChunks(held.image))
}

async function stillHeld(tx: CatalogWriter, held: HeldImport): Promise<ImageRecord | undefined> {
  try {
    return await heldImage(tx, held)
  } catch (error) {
    if (isServiceError(error, 'gone')) return undefined
    throw error
  }
}
