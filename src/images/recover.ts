import { type Caller, serviceCaller } from '../base/caller.ts'
import type { ImageRecord } from '../store/catalog/catalog.ts'
import { recordAudit } from './audit.ts'
import type { ImagePorts } from './ports.ts'

const PAGE = 500

/**
 * Gives back what a stop cut in the middle of receiving: the client that was sending is gone, so an image in `saving`, or in
 * `uploading` with nothing staged, is `queued` again and says why. The bytes that had come belong to nobody; the collector takes
 * them. Snapshots go the same way: whoever was taking one takes it up again. To be called before the service answers: afterwards such images are in use. Imports are taken up by their tasks.
 */
export async function recoverImages(ports: ImagePorts): Promise<number> {
  const caller = serviceCaller('req-start')
  let recovered = 0
  for (const hidden of [false, true]) {
    for (let marker: string | undefined; ; ) {
      const page = await ports.catalog.images.list({
        viewer: { all: true },
        visibility: 'all',
        hidden,
        statuses: ['saving', 'uploading'],
        sort: [{ field: 'id', direction: 'asc' }],
        limit: PAGE,
        ...(marker === undefined ? {} : { marker }),
      })
      for (const image of page) if (await giveBack(ports, caller, image)) recovered += 1
      marker = page.at(-1)?.id
      if (marker === undefined || page.length < PAGE) break
    }
  }
  return recovered
}

async function giveBack({ catalog, now }: ImagePorts, caller: Caller, { id, version }: ImageRecord): Promise<boolean> {
  return catalog.write(async (tx) => {
    const image = await tx.images.get(id)
    const isCut = image?.version === version && (image.status === 'saving' || image.stagedManifest === null)
    if (!isCut) return false
    const { transferId: _, reservedBytes: __, ...notes } = image.notes
    const failure =
      notes.snapshot === true
        ? 'the service was stopped while it read the disk of the instance: it goes on by itself'
        : 'the service was stopped before all bytes had come: send them again'
    const at = now()
    await tx.images.update(id, version, {
      status: 'queued',
      size: null,
      virtualSize: null,
      notes: { ...notes, failure },
      updatedAt: at,
    })
    await recordAudit(tx, caller, 'recover', image, at, { from: image.status })
    return true
  })
}
