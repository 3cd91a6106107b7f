import type { Caller } from '../base/caller.ts'
import { failpoint } from '../base/failpoint.ts'
import type { ImageRecord } from '../store/catalog/catalog.ts'
import type { Ingested, IngestOptions } from '../store/chunks/chunk-store.ts'
import { likelyFiles } from './likely-files.ts'
import type { ImagePorts } from './ports.ts'
import {
  abandonTransfer,
  beginTransfer,
  completeTransfer,
  declaredOf,
  type Incoming,
  metered,
  ownerOfChunks,
  reasonOf,
  type Transfer,
} from './transfer.ts'

/**
 * `PUT /v2/images/{id}/file`: queued → saving → active, keeping exactly the bytes that came; or back to queued with the reason.
 * When it resolves, bytes and record are durable. The caller was asked for once, at the beginning: a token that expires on the
 * way does not matter.
 * @throws ServiceError `not-found`, `denied`, `conflict`, `invalid-request`, `invalid-image`, `unsupported`, `too-large`,
 *   `over-quota`, `no-space`; `gone` where the image was deleted meanwhile
 */
export async function upload(ports: ImagePorts, caller: Caller, id: string, incoming: Incoming): Promise<ImageRecord> {
  const transfer = await beginTransfer(ports, caller, id, 'upload', incoming.declaredBytes)
  failpoint('upload:saving')
  let ingested: Ingested | undefined
  try {
    ingested = await ports.chunks.ingest(metered(ports, transfer, incoming), await ingestOptions(ports, transfer, incoming))
    failpoint('upload:ingested')
    const { virtualBytes, warnings } = await ports.examine(
      await ports.chunks.open(ingested.manifest),
      declaredOf(transfer.image),
      incoming.signal,
    )
    const image = await completeTransfer(ports, caller, transfer, ingested, {
      status: 'active',
      manifest: ingested.manifest,
      size: ingested.fileBytes,
      virtualSize: virtualBytes,
      ...digestsOf(ingested),
      notes: warnings.length > 0 ? { warnings: warnings.join(' ') } : {},
    })
    failpoint('upload:active')
    return image
  } catch (error) {
    const reason = reasonOf(incoming, error)
    await abandonTransfer(ports, caller, transfer, ingested, reason)
    throw reason
  }
}

export const ingestOptions = async (
  ports: ImagePorts,
  { image, maxBytes }: Transfer,
  { declaredBytes, signal }: Incoming,
): Promise<IngestOptions> => ({
  owner: ownerOfChunks(image),
  digests: ['md5', 'sha512'],
  likely: declaredBytes === null ? [] : await likelyFiles(ports, image.owner, declaredBytes),
  maxBytes,
  ...(signal ? { signal } : {}),
})

/** What clients verify their copy by. */
export const digestsOf = ({ digests }: Pick<Ingested, 'digests'>) => ({
  checksum: digests.md5 ?? null,
  hashAlgo: digests.sha512 === undefined ? null : 'sha512',
  hashValue: digests.sha512 ?? null,
})
