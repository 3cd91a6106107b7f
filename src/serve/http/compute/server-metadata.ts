import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { showInstance } from '../../../instances/find-instance.ts'
import { mergeMetadata, metadataItem, removeMetadata, replaceMetadata } from '../../../instances/metadata.ts'
import { bodyOf } from '../json-body.ts'
import { type Call, noContent, ok, part, type Route } from './route.ts'
import { metadata, strict } from './schemas.ts'

const allBody = bodyOf(Type.Object({ metadata }, strict))
const itemBody = bodyOf(Type.Object({ meta: metadata }, strict))

const find = async (call: Call) => (await showInstance(call.ports, call.caller, part(call, 'id'))).metadata

export const metadataRoutes: readonly Route[] = [
  { method: 'GET', path: '/servers/:id/metadata', handle: async (call) => ok({ metadata: await find(call) }) },
  {
    method: 'POST',
    path: '/servers/:id/metadata',
    async handle(call) {
      const wanted = allBody(call.body).metadata
      return ok({ metadata: (await mergeMetadata(call.ports, call.caller, part(call, 'id'), wanted)).metadata })
    },
  },
  {
    method: 'PUT',
    path: '/servers/:id/metadata',
    async handle(call) {
      const wanted = allBody(call.body).metadata
      return ok({ metadata: (await replaceMetadata(call.ports, call.caller, part(call, 'id'), wanted)).metadata })
    },
  },
  {
    method: 'GET',
    path: '/servers/:id/metadata/:key',
    async handle(call) {
      const key = part(call, 'key')
      return ok({ meta: { [key]: metadataItem(await find(call), key) } })
    },
  },
  {
    method: 'PUT',
    path: '/servers/:id/metadata/:key',
    async handle(call) {
      const { meta } = itemBody(call.body)
      const key = part(call, 'key')
      if (Object.keys(meta).length !== 1) throw new ServiceError('invalid-request', 'Request body contains too many items')
      if (!Object.hasOwn(meta, key)) throw new ServiceError('invalid-request', 'Request body and URI mismatch')
      await mergeMetadata(call.ports, call.caller, part(call, 'id'), meta)
      return ok({ meta })
    },
  },
  {
    method: 'DELETE',
    path: '/servers/:id/metadata/:key',
    async handle(call) {
      await removeMetadata(call.ports, call.caller, part(call, 'id'), part(call, 'key'))
      return noContent
    },
  },
]
