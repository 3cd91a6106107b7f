import { isServiceError, ServiceError } from '../../base/errors.ts'
import { formatBytes } from '../../base/units.ts'
import type { Image } from '../client/image-client.ts'
import { command } from '../command.ts'
import { safeText } from '../safe-text.ts'

interface Plan {
  readonly image: Image
  /** Null where it cannot be known. */
  readonly freesBytes: number | null
  readonly sharedWith: number
}

export const imageDelete = command({
  name: 'image delete',
  summary: 'Delete images, and say what that frees',
  description:
    'What is freed is the exclusive size: chunks that no other image uses. The store gives the space back with its next collection.\nDeleting several versions of one image frees more than the sum that is shown, for they share chunks among themselves.',
  arguments: { images: { help: 'names or ids', many: true } },
  options: { dryRun: { type: 'flag', help: 'only say what would be freed, and who uses it' } },
  examples: [
    ['imprint image delete debian-11 --dry-run', 'look first'],
    ['imprint image delete debian-11', 'then do it'],
  ],
  exits: [3, 4, 5, 7],
  async run({ images: wanted, dryRun }, { out, connect }) {
    const { images, imprint } = await connect()
    const plans: Plan[] = []
    for (const name of wanted) {
      const image = await images.find(name)
      const sizes = image.sizeBytes === null ? null : await imprint.sizes(image.id).catch(unknown)
      const members = image.visibility === 'shared' ? ((await images.members(image.id).catch(unknown)) ?? []) : []
      plans.push({ image, freesBytes: sizes?.exclusiveBytes ?? null, sharedWith: members.length })
    }
    const isProtected = plans.find(({ image }) => image.protected)
    if (isProtected && !dryRun) {
      const { name, id } = isProtected.image
      throw new ServiceError(
        'denied',
        `${name ?? id} is protected and nothing was deleted; first: imprint image set ${id} --unprotected`,
      )
    }
    if (!dryRun) for (const { image } of plans) await images.remove(image.id)
    const done = plans.map(({ image, freesBytes, sharedWith }) => ({ id: image.id, name: image.name, freesBytes, sharedWith }))
    out.result({ deleted: !dryRun, images: done }, () => {
      for (const { id, name, freesBytes, sharedWith } of done) {
        const frees = freesBytes === null ? '' : `, ${dryRun ? 'would free' : 'frees'} ${formatBytes(freesBytes)}`
        const shared = sharedWith > 0 ? `, shared with ${sharedWith} ${sharedWith === 1 ? 'project' : 'projects'}` : ''
        out.line(`${dryRun ? 'Would delete' : 'Deleted'} ${safeText(name ?? id)} (${id})${frees}${shared}.`)
      }
    })
    return 0
  },
})

/** What the caller may not see does not keep it from deleting. */
function unknown(error: unknown): null {
  if (isServiceError(error, 'denied') || isServiceError(error, 'conflict') || isServiceError(error, 'not-found')) return null
  throw error
}
