import { type Static, Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import type { NewVolume, WantedSource } from '../../../volumes/create-volume.ts'
import { bodyOf } from '../json-body.ts'
import { isYes } from '../paging.ts'
import type { Call } from './route.ts'
import { description, gigabytes, name, optionalMetadata, reference, yesOrNo } from './schemas.ts'
import { assertWantedType } from './type-routes.ts'
import { ZONE } from './volume-json.ts'

/** `POST /volumes`: what Cinder's schema takes. What this service cannot do is refused below, in words of its own. */
const volume = Type.Object({
  name: Type.Optional(name),
  display_name: Type.Optional(name),
  description: Type.Optional(description),
  display_description: Type.Optional(description),
  size: Type.Optional(Type.Union([gigabytes, Type.Null()], { description: 'a whole number of gigabytes, 1 at least' })),
  imageRef: Type.Optional(reference),
  image_id: Type.Optional(reference),
  snapshot_id: Type.Optional(reference),
  source_volid: Type.Optional(reference),
  backup_id: Type.Optional(reference),
  consistencygroup_id: Type.Optional(reference),
  group_id: Type.Optional(reference),
  volume_type: Type.Optional(reference),
  availability_zone: Type.Optional(reference),
  metadata: optionalMetadata,
  multiattach: Type.Optional(Type.Union([yesOrNo, Type.Null()])),
})
const hints = Type.Optional(Type.Union([Type.Object({}), Type.Null()]))
const parse = bodyOf(Type.Object({ volume, 'OS-SCH-HNT:scheduler_hints': hints }))
type Wanted = Static<typeof volume>

/** @throws ServiceError `invalid-request` */
export function newVolumeFrom({ body }: Call): NewVolume {
  const { volume, ...beside } = parse(body)
  refuseWhatIsNot(volume, beside['OS-SCH-HNT:scheduler_hints'] ?? {})
  const from = sourceFrom(volume)
  const sizeGiB = volume.size === undefined || volume.size === null ? null : Number(volume.size)
  if (sizeGiB === null && (from.kind === 'blank' || from.kind === 'image')) {
    refuse('Invalid input for field/attribute size: a volume that is blank or from an image needs its size in gigabytes')
  }
  return {
    name: textFrom(volume.name ?? volume.display_name),
    description: textFrom(volume.description ?? volume.display_description),
    sizeGiB,
    from,
    metadata: volume.metadata ?? {},
  }
}

export const textFrom = (text: string | null | undefined): string | null => text?.trim() || null

/** Each of these would change what the user gets; none is left out in silence. */
function refuseWhatIsNot(volume: Wanted, hints: object): void {
  assertWantedType(volume.volume_type)
  if (volume.backup_id) refuse('backup_id: there are no backups of volumes here; make snapshots, or images (upload-image)')
  if (volume.consistencygroup_id || volume.group_id) refuse('groups of volumes are not served here')
  if (isYes(String(volume.multiattach ?? false))) refuse('multiattach: a volume here is attached to one instance at a time')
  if (Object.keys(hints).length > 0) refuse('scheduler_hints: there is one host to choose from')
  if ((volume.availability_zone ?? ZONE) !== ZONE) {
    refuse(`Availability zone '${volume.availability_zone}' is invalid: there is none but "${ZONE}"`)
  }
}

function sourceFrom({ imageRef, image_id, snapshot_id, source_volid }: Wanted): WantedSource {
  const image = imageRef || image_id
  const wanted: WantedSource[] = [
    ...(image ? [{ kind: 'image' as const, imageId: image.split('/').at(-1) ?? '' }] : []),
    ...(snapshot_id ? [{ kind: 'snapshot' as const, snapshotId: snapshot_id }] : []),
    ...(source_volid ? [{ kind: 'volume' as const, volumeId: source_volid }] : []),
  ]
  if (wanted.length > 1) refuse('Invalid input received: a volume is made from one of imageRef, snapshot_id and source_volid')
  return wanted[0] ?? { kind: 'blank' }
}

function refuse(problem: string): never {
  throw new ServiceError('invalid-request', problem)
}
