import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { showInstance } from '../../../instances/find-instance.ts'
import { attachments } from '../../../instances/store.ts'
import { attachVolume, showAttachment } from '../../../instances/volumes/attach-volume.ts'
import { type AttachmentRecord, inOrder } from '../../../instances/volumes/attachment.ts'
import { detachVolume } from '../../../instances/volumes/detach-volume.ts'
import { bodyOf } from '../json-body.ts'
import { isYes } from '../paging.ts'
import { accepted, type Call, ok, part, type Route } from './route.ts'
import { strict, uuid, yesOrNo } from './schemas.ts'
import type { Look } from './server-json.ts'

const attachBody = bodyOf(
  Type.Object(
    {
      volumeAttachment: Type.Object(
        {
          volumeId: uuid,
          device: Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()])),
          tag: Type.Optional(Type.String({ minLength: 1, maxLength: 60, pattern: '^[^,/]*$' })),
          delete_on_termination: Type.Optional(yesOrNo),
        },
        strict,
      ),
    },
    strict,
  ),
)
/** The first version that has a field. */
const since = { tag: 49, delete_on_termination: 79 } as const

export const volumeAttachmentRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/servers/:id/os-volume_attachments',
    async handle(call) {
      const { id } = await showInstance(call.ports, call.caller, part(call, 'id'))
      const all = inOrder(await attachments.ofInstance(call.ports.catalog.documents, id))
      return ok({ volumeAttachments: all.map((one) => attachmentJson(call, one)) })
    },
  },
  {
    method: 'POST',
    path: '/servers/:id/os-volume_attachments',
    async handle(call) {
      const { volumeAttachment: wanted } = attachBody(call.body)
      for (const field of ['tag', 'delete_on_termination'] as const) {
        if (wanted[field] === undefined || call.minor >= since[field]) continue
        const problem = `Additional properties are not allowed ('${field}' was unexpected)`
        throw new ServiceError('invalid-request', `Invalid input for field/attribute volumeAttachment. ${problem}`)
      }
      const made = await attachVolume(call.ports, call.caller, part(call, 'id'), {
        volumeId: wanted.volumeId,
        tag: wanted.tag ?? null,
        deleteOnTermination: isYes(String(wanted.delete_on_termination ?? false)),
      })
      return ok({ volumeAttachment: attachmentJson(call, made) })
    },
  },
  {
    method: 'GET',
    path: '/servers/:id/os-volume_attachments/:volume',
    async handle(call) {
      const found = await showAttachment(call.ports, call.caller, part(call, 'id'), part(call, 'volume'))
      return ok({ volumeAttachment: attachmentJson(call, found) })
    },
  },
  {
    method: 'DELETE',
    path: '/servers/:id/os-volume_attachments/:volume',
    async handle(call) {
      await detachVolume(call.ports, call.caller, part(call, 'id'), part(call, 'volume'))
      return accepted
    },
  },
]

const attachmentJson = ({ minor }: Call, { instanceId, volumeId, device, tag, deleteOnTermination }: AttachmentRecord) => ({
  id: volumeId,
  volumeId,
  serverId: instanceId,
  device,
  ...(minor >= 70 ? { tag } : {}),
  ...(minor >= 79 ? { delete_on_termination: deleteOnTermination } : {}),
})

/** What servers are shown by. */
export const lookOf = async (call: Call): Promise<Look> => ({ ...call, volumes: await volumesOfServers(call) })

/** Of all instances: by instance. */
async function volumesOfServers({ ports, minor }: Call): Promise<ReadonlyMap<string, readonly object[]>> {
  const byInstance = new Map<string, object[]>()
  for (const { instanceId, volumeId, deleteOnTermination } of inOrder(await attachments.list(ports.catalog.documents))) {
    const shown = { id: volumeId, ...(minor >= 3 ? { delete_on_termination: deleteOnTermination } : {}) }
    byInstance.set(instanceId, [...(byInstance.get(instanceId) ?? []), shown])
  }
  return byInstance
}
