import { ServiceError } from '../../../base/errors.ts'
import { authorizeService } from '../../../volumes/policy.ts'
import { type Call, ok, part, type Route } from './route.ts'

/** There is one kind of volume: blocks over the store. */
export const volumeType = { id: '9d4e1c36-5f0b-4c2a-8f7e-1a6d3b2c5e70', name: 'imprint' } as const

const typeJson = ({ caller, minor }: Call) => ({
  ...volumeType,
  description: 'blocks over the store: what is not written takes no room',
  is_public: true,
  'os-volume-type-access:is_public': true,
  ...(minor >= 52 || caller.isAdmin ? { extra_specs: {} } : {}),
  ...(caller.isAdmin ? { qos_specs_id: null } : {}),
})

export const typeRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/types',
    handle(call) {
      authorizeService(call.caller, 'read-types')
      const publicToo = (call.query.get('is_public') ?? 'true').toLowerCase() !== 'false'
      return ok({ volume_types: publicToo ? [typeJson(call)] : [] })
    },
  },
  {
    method: 'GET',
    path: '/types/:id',
    handle(call) {
      authorizeService(call.caller, 'read-types')
      assertType(part(call, 'id'))
      return ok({ volume_type: typeJson(call) })
    },
  },
  {
    method: 'GET',
    path: '/types/:id/extra_specs',
    handle(call) {
      authorizeService(call.caller, 'read-types')
      assertType(part(call, 'id'))
      return ok({ extra_specs: {} })
    },
  },
]

/** @throws ServiceError `not-found` */
function assertType(id: string): void {
  if (id === volumeType.id || id === 'default') return
  throw new ServiceError('not-found', `Volume type ${id.slice(0, 80)} could not be found.`)
}

/** By its id or its name. @throws ServiceError `invalid-request` */
export function assertWantedType(wanted: string | null | undefined): void {
  if (wanted === null || wanted === undefined || wanted === '' || wanted === volumeType.id || wanted === volumeType.name) return
  const message = `Invalid input received: Volume type ${JSON.stringify(wanted.slice(0, 80))} could not be found: there is none but "${volumeType.name}"`
  throw new ServiceError('invalid-request', message)
}
