import type { Caller } from '../../base/caller.ts'
import { serviceCaller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import type { ImageRecord } from '../../store/catalog/catalog.ts'
import { recordAudit } from '../audit.ts'
import { findImage } from '../find-image.ts'
import type { ImageVerb } from '../policy.ts'
import type { ImagePorts } from '../ports.ts'
import { assertWithinQuota, quotaOf } from '../quotas.ts'
import { assertIsNoSnapshot } from '../transfer.ts'
import type { ImportRequest } from './import-request.ts'
import { assertCanBeParent } from './parent-disk.ts'
import { abandonImport, importingNotes, runImport } from './run-import.ts'
import { dropExpiredTasks, newTask, putTask, type TaskRecord, unfinishedTasks } from './tasks.ts'

/** The one store there is, as clients name it. */
export const STORE_ID = 'imprint'

const verbs = {
  'glance-direct': 'import-staged',
  'web-download': 'import-download',
  'copy-image': 'import-copy',
} as const satisfies Record<ImportRequest['method']['name'], ImageVerb>

/**
 * `POST /v2/images/{id}/import`: takes the image for an import, which goes on after the answer.
 * @returns the task; `null` where nothing is to be done: the image is in every store already
 * @throws ServiceError `not-found`, `denied`, `conflict`, `invalid-request`, `over-quota`, `unavailable` while stopping
 */
export async function importImage(
  ports: ImagePorts,
  caller: Caller,
  id: string,
  request: ImportRequest,
): Promise<TaskRecord | null> {
  const { method } = request
  const verb = verbs[method.name]
  const { image: before } = await findImage(ports.catalog, caller, id, verb)
  assertImportable(before)
  assertStores(request)
  if (method.name === 'copy-image') {
    if (request.allStores) return nothingToCopy(ports, caller, id)
    throw new ServiceError('invalid-request', `image ${before.id} is in store "${STORE_ID}" already, and there is no other`)
  }
  if (method.name === 'web-download') ports.source.check(method.uri)
  if (method.parentImage !== undefined) await assertParent(ports, caller, method.parentImage)

  const quota = await quotaOf(ports, before.owner)
  const task = await ports.catalog.write(async (tx) => {
    const { image } = await findImage(tx, caller, id, verb)
    assertImportable(image)
    assertIsNoSnapshot(image)
    await assertWithinQuota(tx, image.owner, quota, { storedBytes: 0, ...(method.name === 'web-download' ? { uploads: 1 } : {}) })
    const at = ports.now()
    const begun = newTask(caller, image, request, at)
    const { failure: _, ...notes } = image.notes
    await tx.images.update(image.id, image.version, {
      status: 'importing',
      notes: { ...notes, ...importingNotes(begun.id, STORE_ID) },
      updatedAt: at,
    })
    await recordAudit(tx, caller, 'import-begin', image, at, {
      method: method.name,
      ...(method.parentImage ? { parentImage: method.parentImage } : {}),
    })
    await dropExpiredTasks(tx, at)
    return putTask(tx, begun)
  })
  try {
    start(ports, caller, task)
  } catch (error) {
    await abandonImport(ports, caller, task.id, STORE_ID, error)
    throw error
  }
  return task
}

/** Whether the caller could read that disk; it is looked for again when the import begins. */
async function assertParent({ catalog }: ImagePorts, caller: Caller, id: string): Promise<void> {
  const { image } = await findImage(catalog, caller, id, 'download')
  assertCanBeParent(image)
}

/** Clients that wait for a copy look at the image until no store is left to copy to. */
async function nothingToCopy(ports: ImagePorts, caller: Caller, id: string): Promise<null> {
  await ports.catalog.write(async (tx) => {
    const { image } = await findImage(tx, caller, id, verbs['copy-image'])
    const notes = { ...image.notes, importingToStores: '', failedImport: '' }
    await tx.images.update(image.id, image.version, { notes, updatedAt: ports.now() })
  })
  return null
}

/** Takes up the imports that the last run of the service left unfinished. */
export async function resumeImports(ports: ImagePorts): Promise<number> {
  const tasks = await unfinishedTasks(ports.catalog, MAX_RESUMED)
  for (const task of tasks) start(ports, serviceCaller(task.requestId), task)
  return tasks.length
}
const MAX_RESUMED = 10_000

function start(ports: ImagePorts, caller: Caller, { id, imageId }: TaskRecord): void {
  ports.jobs.start(`import of image ${imageId}`, (signal) => runImport(ports, caller, id, STORE_ID, signal))
}

/** In Glance's words: an import without formats is a conflict, not a malformed request. */
function assertImportable({ id, diskFormat, containerFormat, stagedManifest, status }: ImageRecord): void {
  const missing = [...(containerFormat === null ? ['container_format'] : []), ...(diskFormat === null ? ['disk_format'] : [])]
  if (missing.length > 0) throw new ServiceError('conflict', `set ${missing.join(' and ')} of image ${id} before you import it`)
  if (status === 'uploading' && stagedManifest === null) {
    throw new ServiceError('conflict', `image ${id} is still being staged: wait until all of its bytes are there`)
  }
}

function assertStores({ stores }: ImportRequest): void {
  const unknown = stores?.find((store) => store !== STORE_ID)
  if (unknown === undefined) return
  throw new ServiceError('conflict', `there is no store ${JSON.stringify(unknown.slice(0, 80))} here; there is "${STORE_ID}"`)
}
