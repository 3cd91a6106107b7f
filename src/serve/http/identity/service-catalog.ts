import { ServiceError } from '../../../base/errors.ts'
import type { Ports } from '../../../identity/ports.ts'
import { stableId } from '../../../identity/service.ts'
import { collection, filtered } from './presentation.ts'
import { notFound } from './refusals.ts'
import { type Call, ok, type Route } from './route.ts'

/** Where clients find the APIs of this process: at the address by which they reached it. */
const interfaces = ['public', 'internal', 'admin'] as const

/** As it stands in tokens. */
export const serviceCatalog = ({ services, region }: Ports, origin: string): readonly object[] =>
  services.map(({ id, type, name, path }) => ({
    id,
    type,
    name,
    endpoints: interfaces.map((face) => ({
      id: stableId('endpoint', type, face),
      interface: face,
      region_id: region,
      region,
      url: origin + path,
    })),
  }))

const services = ({ ports, base }: Call) =>
  ports.services.map(({ id, type, name }) => ({
    id,
    type,
    name,
    enabled: true,
    links: { self: `${base}/services/${id}` },
  }))

const endpoints = ({ ports, base, origin }: Call) =>
  ports.services.flatMap(({ id: serviceId, type, path }) =>
    interfaces.map((face) => {
      const id = stableId('endpoint', type, face)
      return {
        id,
        interface: face,
        region_id: ports.region,
        region: ports.region,
        service_id: serviceId,
        url: origin + path,
        enabled: true,
        links: { self: `${base}/endpoints/${id}` },
      }
    }),
  )

const regions = ({ ports, base }: Call) => [
  { id: ports.region, description: '', parent_region_id: null, links: { self: `${base}/regions/${ports.region}` } },
]

/** A list and its members, made from the settings: there is nothing to write. */
const listing = (
  name: string,
  member: string,
  verb: 'service:read' | 'region:read',
  items: (call: Call) => readonly { readonly id: string }[],
  fields: readonly string[],
): Route[] => [
  {
    method: 'GET',
    path: `/${name}`,
    verb,
    handle: (call) => ok(collection(name, filtered(items(call), call.query, fields), `${call.base}/${name}`)),
  },
  {
    method: 'GET',
    path: `/${name}/:id`,
    verb,
    handle: (call) => {
      const found = items(call).find(({ id }) => id === call.params.id)
      if (!found) throw notFound(member, call.params.id)
      return ok({ [member]: found })
    },
  },
]

export const serviceCatalogRoutes: readonly Route[] = [
  ...listing('services', 'service', 'service:read', services, ['type', 'name']),
  ...listing('endpoints', 'endpoint', 'service:read', endpoints, ['interface', 'service_id', 'region_id', 'enabled']),
  ...listing('regions', 'region', 'region:read', regions, ['parent_region_id']),
  {
    method: 'GET',
    path: '/auth/catalog',
    handle: ({ ports, origin, base, caller }) => {
      if (caller.projectId === null) {
        throw new ServiceError('denied', 'the service catalog is shown to tokens for a project: log in with one as scope')
      }
      return ok({ catalog: serviceCatalog(ports, origin), links: { self: `${base}/auth/catalog` } })
    },
  },
]
