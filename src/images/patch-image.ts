import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import type { ImageRecord } from '../store/catalog/catalog.ts'
import { assertCounts, assertSettable, assertValue, fieldOf, isAttribute, quoted } from './attributes.ts'
import { recordAudit } from './audit.ts'
import { type FoundImage, findImage } from './find-image.ts'
import { authorize } from './policy.ts'
import type { ImagePorts } from './ports.ts'
import type { PropertyProtections } from './protections/protections.ts'
import { assertAllowed, refusal } from './protections/protections.ts'
import { assertWithinQuota, quotaOf } from './quotas.ts'

/** One step of a patch, its shape already checked. */
export type Change =
  | {
      readonly op: 'add' | 'replace'
      readonly name: string
      readonly value: unknown /** As the older media type has it. */
      readonly addOnlyNew?: boolean
    }
  | { readonly op: 'remove'; readonly name: string }

/** Throws what is wrong with a change whatever the image. @throws ServiceError `denied`, `invalid-request` */
export function assertChange(change: Change): void {
  if (change.name === 'id') throw new ServiceError('denied', 'attribute "id" is read-only: an image keeps its id for ever')
  assertSettable(change.name)
  if (change.op !== 'remove') assertValue(change.name, change.value)
}

/**
 * `PATCH /v2/images/{id}`: all changes, in order, or none.
 * @throws ServiceError `not-found`; `denied`; `invalid-request`; `conflict` for a property that is not there; `too-large`
 */
export async function patchImage(
  ports: ImagePorts,
  caller: Caller,
  id: string,
  changes: readonly Change[],
): Promise<ImageRecord> {
  for (const change of changes) assertChange(change)
  if (changes.length === 0) return (await findImage(ports.catalog, caller, id, 'show')).image
  return ports.catalog.write(async (tx) => {
    const found = await findImage(tx, caller, id, 'show')
    const { image } = found
    let patched = image
    for (const change of changes) {
      authorizeChange(caller, found, change)
      patched = applied(patched, change, caller, ports.protections)
    }
    assertCounts(patched)
    if (image.visibility === 'public' && patched.visibility !== 'public') {
      await assertWithinQuota(tx, image.owner, await quotaOf(ports, image.owner, ['image_count_total']), { images: 1 })
    }
    const at = ports.now()
    const stored = await tx.images.update(image.id, image.version, {
      name: patched.name,
      visibility: patched.visibility,
      protected: patched.protected,
      hidden: patched.hidden,
      owner: patched.owner,
      diskFormat: patched.diskFormat,
      containerFormat: patched.containerFormat,
      minDisk: patched.minDisk,
      minRam: patched.minRam,
      tags: patched.tags,
      properties: patched.properties,
      updatedAt: at,
    })
    await recordAudit(tx, caller, 'update', stored, at, {
      changed: [...new Set(changes.map((c) => c.name))].join(' ').slice(0, 500),
    })
    return stored
  })
}

function authorizeChange(caller: Caller, { image, membership }: FoundImage, change: Change): void {
  if (change.name === 'owner') authorize(caller, 'change-owner', image, membership)
  if (change.name === 'visibility' && change.op !== 'remove') {
    if (change.value === 'public') authorize(caller, 'publicize', image, membership)
    if (change.value === 'community') authorize(caller, 'communitize', image, membership)
  }
  authorize(caller, 'update', image, membership)
}

function applied(image: ImageRecord, change: Change, caller: Caller, protections: PropertyProtections): ImageRecord {
  const { name } = change
  if (isAttribute(name)) return withAttribute(image, change)

  const isThere = Object.hasOwn(image.properties, name)
  const known = isThere && protections.check(caller, name, 'read')
  if (!known && change.op !== 'add') {
    throw new ServiceError('conflict', `image ${image.id} has no property ${quoted(name)} to ${change.op}`)
  }
  if (change.op === 'remove') {
    assertAllowed(protections, caller, name, 'delete')
    return { ...image, properties: without(image.properties, name) }
  }
  if (known && change.op === 'add' && change.addOnlyNew) {
    throw new ServiceError('conflict', `image ${image.id} has the property ${quoted(name)} already: replace it`)
  }
  assertAllowed(protections, caller, name, known ? 'update' : 'create')
  if (isThere && !protections.check(caller, name, 'update')) throw refusal(name, 'create') // as if it were absent: it is not shown
  const others = without(image.properties, name)
  return { ...image, properties: change.value === null ? others : { ...others, [name]: change.value as string } }
}

function withAttribute(image: ImageRecord, change: Change): ImageRecord {
  const { name } = change
  if (!isAttribute(name)) return image
  if (change.op === 'remove') throw new ServiceError('denied', `attribute "${name}" cannot be removed; replace it`)
  if (change.op === 'add' && change.addOnlyNew) {
    throw new ServiceError('conflict', `image ${image.id} has the attribute "${name}" already: replace it`)
  }
  const describesBytes = name === 'disk_format' || name === 'container_format'
  if (describesBytes && image.status !== 'queued') {
    throw new ServiceError(
      'denied',
      `attribute "${name}" says what the bytes are: it can be changed only while the image is queued`,
    )
  }
  const value = name === 'owner' && change.value === '' ? null : change.value
  return { ...image, [fieldOf(name)]: name === 'tags' ? [...new Set(value as readonly string[])].sort() : value }
}

const without = (properties: Readonly<Record<string, string>>, name: string): Record<string, string> =>
  Object.fromEntries(Object.entries(properties).filter(([key]) => key !== name))
