import type { Caller } from '../base/caller.ts'
import { failpoint } from '../base/failpoint.ts'
import type { ImageRecord } from '../store/catalog/catalog.ts'
import type { Ingested } from '../store/chunks/chunk-store.ts'
import type { ImagePorts } from './ports.ts'
import { abandonTransfer, beginTransfer, completeTransfer, type Incoming, metered, reasonOf } from './transfer.ts'
import { ingestOptions } from './upload.ts'

/**
 * `PUT /v2/images/{id}/stage`: queued → uploading, with the bytes laid by until `import` takes them.
 * @throws ServiceError as `upload`, but nothing looks into the bytes yet
 */
export async function stage(ports: ImagePorts, caller: Caller, id: string, incoming: Incoming): Promise<ImageRecord> {
  const transfer = await beginTransfer(ports, caller, id, 'stage', incoming.declaredBytes)
  let ingested: Ingested | undefined
  try {
    ingested = await ports.chunks.ingest(metered(ports, transfer, incoming), await ingestOptions(ports, transfer, incoming))
    failpoint('stage:ingested')
    return await completeTransfer(ports, caller, transfer, ingested, {
      stagedManifest: ingested.manifest,
      size: ingested.fileBytes,
      notes: stagedDigests(ingested),
    })
  } catch (error) {
    const reason = reasonOf(incoming, error)
    await abandonTransfer(ports, caller, transfer, ingested, reason)
    throw reason
  }
}

/** Digests of the staged file, for an import that keeps it as it is, and to say later what came in. */
export const stagedDigests = ({ digests }: Pick<Ingested, 'digests'>): Record<string, string> => ({
  ...(digests.md5 === undefined ? {} : { stagedMd5: digests.md5 }),
  ...(digests.sha512 === undefined ? {} : { stagedSha512: digests.sha512 }),
})
