import { ServiceError } from '../../../base/errors.ts'
import { listVolumes } from '../../../volumes/list.ts'
import type { VolumeRecord } from '../../../volumes/records.ts'
import { isoMicroseconds } from '../times.ts'
import { volumeQueryFrom } from './list-query.ts'
import { type Call, ok, part, type Route } from './route.ts'

/** What is attached where: the compute API attaches and detaches. */
export const attachmentRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/attachments',
    since: 27,
    handle: async (call) => ok({ attachments: (await attached(call)).map(summary) }),
  },
  {
    method: 'GET',
    path: '/attachments/detail',
    since: 27,
    handle: async (call) => ok({ attachments: (await attached(call)).map(detail) }),
  },
  {
    method: 'GET',
    path: '/attachments/:id',
    since: 27,
    async handle(call) {
      const id = part(call, 'id')
      const found = (await attached({ ...call, query: new URLSearchParams('all_tenants=1') })).find(
        ({ attachment }) => attachment.id === id,
      )
      if (!found)
        throw new ServiceError(
          'not-found',
          `Volume attachment could not be found with filter: attachment_id = ${id.slice(0, 80)}.`,
        )
      return ok({ attachment: detail(found) })
    },
  },
]

type Attached = VolumeRecord & { readonly attachment: NonNullable<VolumeRecord['attachment']> }

async function attached(call: Call): Promise<readonly Attached[]> {
  const { sort, conditions, ...query } = volumeQueryFrom({ ...call, query: scopeOf(call.query) })
  const { items } = await listVolumes(call.ports, call.caller, { ...query, sort, conditions, limit: Number.MAX_SAFE_INTEGER })
  const [volumeId, instanceId] = [call.query.get('volume_id'), call.query.get('instance_id')]
  return items.flatMap((volume) => {
    const { attachment } = volume
    const isWanted =
      attachment && (volumeId ?? volume.id) === volume.id && (instanceId ?? attachment.instanceId) === attachment.instanceId
    return isWanted ? [{ ...volume, attachment }] : []
  })
}

/** Filters of volumes mean nothing here. */
const scopeOf = (query: URLSearchParams): URLSearchParams =>
  new URLSearchParams([...query].filter(([name]) => name === 'all_tenants' || name === 'project_id'))

const summary = ({ id, attachment, status }: Attached) => ({
  id: attachment.id,
  volume_id: id,
  instance: attachment.instanceId,
  status: attachment.at === null ? 'attaching' : status === 'detaching' ? 'detaching' : 'attached',
})

const detail = (volume: Attached) => ({
  ...summary(volume),
  attached_at: volume.attachment.at === null ? null : isoMicroseconds(volume.attachment.at),
  detached_at: null,
  attach_mode: 'rw',
  // how it is reached is between the machine and the service
  connection_info: {},
})
