import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { showInstance } from '../../../instances/find-instance.ts'
import type { InstanceRecord } from '../../../instances/records.ts'
import { addTag, noSuchTag, removeTag, replaceTags } from '../../../instances/tags.ts'
import { bodyOf } from '../json-body.ts'
import { type Call, noContent, ok, part, type Route } from './route.ts'
import { strict } from './schemas.ts'
import { addressesOf } from './server-json.ts'

const tagsBody = bodyOf(Type.Object({ tags: Type.Array(Type.String({ minLength: 1, maxLength: 60 }), { maxItems: 50 }) }, strict))

const find = (call: Call) => showInstance(call.ports, call.caller, part(call, 'id'))
export const serverPartRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/servers/:id/os-interface',
    handle: async (call) => ok({ interfaceAttachments: interfacesOf(await find(call)) }),
  },
  {
    method: 'GET',
    path: '/servers/:id/os-security-groups',
    async handle(call) {
      const { network, projectId } = await find(call)
      const group = { id: 'default', name: 'default', description: '', tenant_id: projectId, rules: [] }
      return ok({ security_groups: network ? [group] : [] })
    },
  },
  { method: 'GET', path: '/servers/:id/ips', handle: async (call) => ok({ addresses: addressesOf(await find(call)) }) },
  {
    method: 'GET',
    path: '/servers/:id/ips/:network',
    async handle(call) {
      const name = part(call, 'network')
      const addresses = addressesOf(await find(call))
      if (!Object.hasOwn(addresses, name)) throw new ServiceError('not-found', 'Instance is not a member of specified network')
      return ok({ [name]: addresses[name] })
    },
  },
  { method: 'GET', path: '/servers/:id/tags', since: 26, handle: async (call) => ok({ tags: (await find(call)).tags }) },
  {
    method: 'PUT',
    path: '/servers/:id/tags',
    since: 26,
    async handle(call) {
      const { tags } = tagsBody(call.body)
      return ok({ tags: (await replaceTags(call.ports, call.caller, part(call, 'id'), tags)).tags })
    },
  },
  {
    method: 'DELETE',
    path: '/servers/:id/tags',
    since: 26,
    async handle(call) {
      await replaceTags(call.ports, call.caller, part(call, 'id'), [])
      return noContent
    },
  },
  {
    method: 'GET',
    path: '/servers/:id/tags/:tag',
    since: 26,
    async handle(call) {
      const { id, tags } = await find(call)
      if (!tags.includes(part(call, 'tag'))) throw noSuchTag(id, part(call, 'tag'))
      return noContent
    },
  },
  { method: 'PUT', path: '/servers/:id/tags/:tag', since: 26, handle: putTag },
  {
    method: 'DELETE',
    path: '/servers/:id/tags/:tag',
    since: 26,
    async handle(call) {
      await removeTag(call.ports, call.caller, part(call, 'id'), part(call, 'tag'))
      return noContent
    },
  },
]

async function putTag(call: Call) {
  const tag = part(call, 'tag')
  const had = (await find(call)).tags.includes(tag)
  const { id } = await addTag(call.ports, call.caller, part(call, 'id'), tag)
  return had ? noContent : { status: 201, headers: { location: `${call.base}/servers/${id}/tags/${encodeURIComponent(tag)}` } }
}

/** Only of a card in a bridge is there something to tell: by its MAC it is found among the addresses that were given out there. */
const interfacesOf = ({ id, network }: InstanceRecord): readonly object[] =>
  network?.bridge === undefined
    ? []
    : [{ port_id: id, port_state: 'ACTIVE', net_id: network.bridge, mac_addr: network.mac, fixed_ips: [] }]
