import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { deleteVolume } from '../../../volumes/delete-volume.ts'
import { extendVolume } from '../../../volumes/extend-volume.ts'
import { showVolume } from '../../../volumes/find-volume.ts'
import { type ResettableStatus, resettableStatuses, resetVolumeStatus } from '../../../volumes/reset-status.ts'
import { mergeImageMetadata, removeImageMetadata, setReadOnly, updateVolume } from '../../../volumes/update-volume.ts'
import { uploadVolume, type WantedImage } from '../../../volumes/upload-volume.ts'
import { bodyOf } from '../json-body.ts'
import { isYes } from '../paging.ts'
import { isoMicroseconds } from '../times.ts'
import { type Answer, accepted, type Call, ok, part, type Route } from './route.ts'
import { gigabytes, metadata, reference, strict, yesOrNo } from './schemas.ts'
import { volumeType } from './type-routes.ts'

/** `POST /volumes/{id}/action`: what is to be done is the name of the one field. */
export type Act = (call: Call, id: string) => Promise<Answer>

const extendBody = bodyOf(Type.Object({ 'os-extend': Type.Object({ new_size: gigabytes }, strict) }, strict))
const bootableBody = bodyOf(Type.Object({ 'os-set_bootable': Type.Object({ bootable: yesOrNo }, strict) }, strict))
const readOnlyBody = bodyOf(Type.Object({ 'os-update_readonly_flag': Type.Object({ readonly: yesOrNo }, strict) }, strict))
const setImageBody = bodyOf(Type.Object({ 'os-set_image_metadata': Type.Object({ metadata }, strict) }, strict))
const unsetImageBody = bodyOf(
  Type.Object({ 'os-unset_image_metadata': Type.Object({ key: Type.String({ minLength: 1, maxLength: 255 }) }, strict) }, strict),
)
const uploadBody = bodyOf(
  Type.Object({
    'os-volume_upload_image': Type.Object({
      image_name: Type.String({ minLength: 1, maxLength: 255 }),
      force: Type.Optional(Type.Union([yesOrNo, Type.Null()])),
      disk_format: Type.Optional(reference),
      container_format: Type.Optional(reference),
      visibility: Type.Optional(reference),
      protected: Type.Optional(Type.Union([yesOrNo, Type.Null()])),
    }),
  }),
)
const resetBody = bodyOf(
  Type.Object({
    'os-reset_status': Type.Object({
      status: Type.Union(
        resettableStatuses.map((status) => Type.Literal(status)),
        {
          description: `one of ${resettableStatuses.join(', ')}: the others are for work that goes on`,
        },
      ),
    }),
  }),
)

const acts: Readonly<Record<string, Act>> = {
  async 'os-extend'({ ports, caller, body }, id) {
    await extendVolume(ports, caller, id, Number(extendBody(body)['os-extend'].new_size))
    return accepted
  },
  async 'os-set_bootable'({ ports, caller, body }, id) {
    const isBootable = isYes(String(bootableBody(body)['os-set_bootable'].bootable))
    await updateVolume(ports, caller, id, { isBootable })
    return { status: 200 }
  },
  async 'os-update_readonly_flag'({ ports, caller, body }, id) {
    await setReadOnly(ports, caller, id, isYes(String(readOnlyBody(body)['os-update_readonly_flag'].readonly)))
    return accepted
  },
  async 'os-set_image_metadata'({ ports, caller, body }, id) {
    const added = setImageBody(body)['os-set_image_metadata'].metadata
    return ok({ metadata: (await mergeImageMetadata(ports, caller, id, added)).imageMetadata ?? {} })
  },
  async 'os-unset_image_metadata'({ ports, caller, body }, id) {
    await removeImageMetadata(ports, caller, id, unsetImageBody(body)['os-unset_image_metadata'].key)
    return { status: 200 }
  },
  async 'os-show_image_metadata'({ ports, caller }, id) {
    return ok({ metadata: (await showVolume(ports, caller, id)).imageMetadata ?? {} })
  },
  async 'os-reset_status'({ ports, caller, body }, id) {
    await resetVolumeStatus(ports, caller, id, resetBody(body)['os-reset_status'].status as ResettableStatus)
    return accepted
  },
  async 'os-volume_upload_image'(call, id) {
    const wanted = imageFrom(call)
    const { volume, imageId } = await uploadVolume(call.ports, call.caller, id, wanted)
    const { name, description, sizeGiB, updatedAt, status } = volume
    const image = { image_id: imageId, image_name: wanted.name, container_format: 'bare', disk_format: 'raw' }
    const type = { ...volumeType, is_public: true, description: null, qos_specs_id: null, extra_specs: {} }
    return {
      status: 202,
      body: {
        'os-volume_upload_image': {
          ...{ id: volume.id, display_name: name, display_description: description, size: sizeGiB, status, volume_type: type },
          ...{ ...image, updated_at: isoMicroseconds(updatedAt) },
          ...(call.minor >= 1 ? { visibility: 'private', protected: false } : {}),
        },
      },
    }
  },
  async 'os-force_delete'({ ports, caller }, id) {
    await deleteVolume(ports, caller, id, { force: true })
    return accepted
  },
}

/** @throws ServiceError `unsupported`, `invalid-request` */
function imageFrom({ body, minor }: Call): WantedImage {
  const wanted = uploadBody(body)['os-volume_upload_image']
  const refuse = (problem: string) => {
    throw new ServiceError('invalid-request', `Invalid input received: ${problem}`)
  }
  if ((wanted.disk_format ?? 'raw') !== 'raw') {
    refuse(`disk_format ${wanted.disk_format}: a volume becomes a raw image; any format can be asked for when that is downloaded`)
  }
  if ((wanted.container_format ?? 'bare') !== 'bare') refuse('container_format: a volume becomes an image in a bare container')
  if (minor >= 1 && (wanted.visibility ?? 'private') !== 'private')
    refuse('visibility: it becomes a private image; share or publish that')
  if (minor >= 1 && isYes(String(wanted.protected ?? false))) refuse('protected: protect the image when it is there')
  return { name: wanted.image_name, mayBeInUse: isYes(String(wanted.force ?? false)) }
}

export const actionNames: readonly string[] = Object.keys(acts)

/** Cinder's other actions: known, and not served here. Volumes are attached by the compute API. */
const notHere: ReadonlySet<string> = new Set([
  ...['os-attach', 'os-begin_detaching', 'os-detach', 'os-force_detach', 'os-initialize_connection', 'os-migrate_volume'],
  ...['os-migrate_volume_completion', 'os-reimage', 'os-reserve', 'os-retype', 'os-roll_detaching', 'os-terminate_connection'],
  ...['os-unmanage', 'os-unreserve', 'revert'],
])

/** @param acts by the name of the field; @param notHere what there is elsewhere */
export async function actOn(call: Call, acts: Readonly<Record<string, Act>>, notHere: ReadonlySet<string>): Promise<Answer> {
  const [name = '', ...others] = Object.keys((call.body as object | undefined) ?? {})
  const act = others.length === 0 && Object.hasOwn(acts, name) ? acts[name] : undefined
  if (act) return act(call, part(call, 'id'))
  const served = Object.keys(acts).join(', ')
  if (others.length === 0 && notHere.has(name)) {
    throw new ServiceError('unsupported', `"${name}" is not served here; what is: ${served}`)
  }
  throw new ServiceError(
    'invalid-request',
    `There is no such action: ${name.slice(0, 80) || 'none'}. Available actions: ${served}`,
  )
}

export const volumeActionRoutes: readonly Route[] = [
  { method: 'POST', path: '/volumes/:id/action', handle: (call) => actOn(call, acts, notHere) },
]
