import { randomUUID } from 'node:crypto'
import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import type { ImageRecord } from '../store/catalog/catalog.ts'
import { assertCounts, type NewImage } from './attributes.ts'
import { recordAudit } from './audit.ts'
import { authorizeService, isAllowed } from './policy.ts'
import type { ImagePorts } from './ports.ts'
import { assertAllowed } from './protections/protections.ts'
import { assertWithinQuota, quotaOf } from './quotas.ts'

/**
 * `POST /v2/images`: a record without bytes, `queued`.
 * @param notes what the service itself has to say of it
 * @throws ServiceError `denied`; `too-large`; `over-quota`; `conflict` where the id was ever used
 */
export async function createImage(
  ports: ImagePorts,
  caller: Caller,
  wanted: NewImage,
  notes: ImageRecord['notes'] = {},
): Promise<ImageRecord> {
  const owner = wanted.owner === undefined ? caller.projectId : wanted.owner
  authorizeService(caller, 'create')
  if (owner !== caller.projectId && !isAllowed(caller, 'create-for-another-project')) {
    throw new ServiceError('denied', 'only an administrator creates images that another project owns')
  }
  if (wanted.visibility === 'public') authorizeService(caller, 'create-public')
  for (const name of Object.keys(wanted.properties)) assertAllowed(ports.protections, caller, name, 'create')
  assertCounts(wanted)

  const quota = await quotaOf(ports, owner, ['image_count_total'])
  const at = ports.now()
  const image: ImageRecord = {
    ...wanted,
    id: wanted.id ?? randomUUID(),
    owner,
    tags: [...new Set(wanted.tags)].sort(),
    status: 'queued',
    size: null,
    virtualSize: null,
    checksum: null,
    hashAlgo: null,
    hashValue: null,
    createdAt: at,
    updatedAt: at,
    deletedAt: null,
    manifest: null,
    stagedManifest: null,
    notes,
    version: 1,
  }
  await ports.catalog.write(async (tx) => {
    await assertWithinQuota(tx, owner, quota, { images: image.visibility === 'public' ? 0 : 1 })
    await tx.images.create(image)
    await recordAudit(tx, caller, 'create', image, at)
  })
  return image
}
