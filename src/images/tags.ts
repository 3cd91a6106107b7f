import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { assertCounts, isTag, quoted } from './attributes.ts'
import { recordAudit } from './audit.ts'
import { findImage } from './find-image.ts'
import type { ImagePorts } from './ports.ts'

/** A tag that is there already stays. @throws ServiceError `not-found`, `denied`, `invalid-request`, `too-large` */
export async function addTag(ports: ImagePorts, caller: Caller, id: string, tag: string): Promise<void> {
  if (!isTag(tag)) throw new ServiceError('invalid-request', 'a tag is text of at most 255 characters')
  await changeTags(ports, caller, id, 'add-tag', tag, (tags) => [...new Set([...tags, tag])].sort())
}

/** @throws ServiceError `not-found`, also for a tag that is not there; `denied` */
export async function deleteTag(ports: ImagePorts, caller: Caller, id: string, tag: string): Promise<void> {
  await changeTags(ports, caller, id, 'delete-tag', tag, (tags) => {
    if (!tags.includes(tag)) throw new ServiceError('not-found', `image ${id} has no tag ${quoted(tag)}`)
    return tags.filter((other) => other !== tag)
  })
}

async function changeTags(
  ports: ImagePorts,
  caller: Caller,
  id: string,
  action: string,
  tag: string,
  change: (tags: readonly string[]) => readonly string[],
): Promise<void> {
  await ports.catalog.write(async (tx) => {
    const { image } = await findImage(tx, caller, id, 'tag')
    const tags = change(image.tags)
    assertCounts({ tags, properties: {} })
    const at = ports.now()
    await tx.images.update(image.id, image.version, { tags, updatedAt: at })
    await recordAudit(tx, caller, action, image, at, { tag })
  })
}
