import { type Static, Type } from '@sinclair/typebox'
import { createInstances } from '../../../instances/create-instances.ts'
import { deleteInstance } from '../../../instances/delete-instance.ts'
import { showInstance } from '../../../instances/find-instance.ts'
import { listInstances } from '../../../instances/list/list-instances.ts'
import type { InstanceRecord } from '../../../instances/records.ts'
import { type InstanceUpdate, updateInstance } from '../../../instances/update-instance.ts'
import { bodyOf } from '../json-body.ts'
import { nextLink } from '../paging.ts'
import { addressFrom, newServerFrom } from './new-server.ts'
import { type Call, noContent, ok, part, type Route } from './route.ts'
import { description, name, strict } from './schemas.ts'
import { type Look, serverJson, serverLinks, serverSummary, updatedJson } from './server-json.ts'
import { serverQueryFrom } from './server-query.ts'
import { lookOf } from './volume-attachments.ts'

const update = {
  name: Type.Optional(name),
  'OS-DCF:diskConfig': Type.Optional(Type.Union([Type.Literal('AUTO'), Type.Literal('MANUAL')])),
  accessIPv4: Type.Optional(Type.String({ maxLength: 255 })),
  accessIPv6: Type.Optional(Type.String({ maxLength: 255 })),
}
const update19 = { ...update, description: Type.Optional(description) }
const updateBody = bodyOf(Type.Object({ server: Type.Object(update, strict) }, strict))
const updateBody19 = bodyOf(Type.Object({ server: Type.Object(update19, strict) }, strict))
type Update = Static<ReturnType<typeof Type.Object<typeof update19>>>

export const serverRoutes: readonly Route[] = [
  { method: 'GET', path: '/servers', handle: (call) => list(call, '/servers', serverSummary) },
  { method: 'GET', path: '/servers/detail', handle: (call) => list(call, '/servers/detail', serverJson) },
  { method: 'POST', path: '/servers', handle: create },
  { method: 'GET', path: '/servers/:id', handle: async (call) => shown(await lookOf(call), await find(call)) },
  {
    method: 'PUT',
    path: '/servers/:id',
    async handle(call) {
      const { server } = (call.minor >= 19 ? updateBody19 : updateBody)(call.body)
      const instance = await updateInstance(call.ports, call.caller, part(call, 'id'), changesFrom(server))
      return ok({ server: { ...updatedJson(await lookOf(call), instance), ...(call.minor >= 75 ? { server_groups: [] } : {}) } })
    },
  },
  {
    method: 'DELETE',
    path: '/servers/:id',
    async handle(call) {
      await deleteInstance(call.ports, call.caller, part(call, 'id'))
      return noContent
    },
  },
]

const find = (call: Call): Promise<InstanceRecord> => showInstance(call.ports, call.caller, part(call, 'id'))

/** Groups of servers are shown with one server only. */
const shown = (look: Look, instance: InstanceRecord) =>
  ok({ server: { ...serverJson(look, instance), ...(look.minor >= 71 ? { server_groups: [] } : {}) } })

async function list(call: Call, path: string, show: (look: Look, instance: InstanceRecord) => object) {
  const look = await lookOf(call)
  const { instances, isCut } = await listInstances(call.ports, call.caller, serverQueryFrom(call))
  const last = isCut ? instances.at(-1) : undefined
  return ok({
    servers: instances.map((instance) => show(look, instance)),
    ...(last ? { servers_links: [nextLink(call.base + path, call.query, last.id)] } : {}),
  })
}

async function create(call: Call) {
  const { wanted, returnsReservation } = newServerFrom(call)
  const [first] = await createInstances(call.ports, call.caller, wanted)
  if (!first) throw new Error('a request makes one instance at least')
  if (returnsReservation) return { status: 202, body: { reservation_id: first.reservationId } }
  return {
    status: 202,
    body: {
      server: {
        id: first.id,
        links: serverLinks(call, first.id),
        'OS-DCF:diskConfig': first.diskConfig,
        security_groups: first.network ? [{ name: 'default' }] : [],
      },
    },
    headers: { location: `${call.base}/servers/${first.id}` },
  }
}

const changesFrom = ({ name, description, accessIPv4, accessIPv6, 'OS-DCF:diskConfig': diskConfig }: Update): InstanceUpdate => ({
  ...(name === undefined ? {} : { name }),
  ...(description === undefined ? {} : { description }),
  ...(accessIPv4 === undefined ? {} : { accessIPv4: addressFrom(accessIPv4, 'accessIPv4') }),
  ...(accessIPv6 === undefined ? {} : { accessIPv6: addressFrom(accessIPv6, 'accessIPv6') }),
  ...(diskConfig === undefined ? {} : { diskConfig }),
})
