import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { addFlavorAccess, listFlavorAccess, removeFlavorAccess } from '../../../instances/flavors/access.ts'
import { extraSpecOf, removeExtraSpec, setExtraSpecs } from '../../../instances/flavors/extra-specs.ts'
import {
  changeFlavor,
  createFlavor,
  deleteFlavor,
  type FlavorQuery,
  type FlavorSortKey,
  listFlavors,
  showFlavor,
} from '../../../instances/flavors/flavors.ts'
import { bodyOf } from '../json-body.ts'
import { isYes, limitFrom, nextLink, refuseUnknown } from '../paging.ts'
import { flavorJson, flavorSummary } from './flavor-json.ts'
import { accepted, type Call, ok, part, type Route } from './route.ts'
import { count, description, extraSpecs, name, strict, yesOrNo } from './schemas.ts'

const MOST = 2 ** 31 - 1 // Nova's columns

const newFlavor = {
  name,
  id: Type.Optional(
    Type.Union([Type.String({ pattern: '^(?! )[a-zA-Z0-9. _-]{1,255}(?<! )$' }), Type.Integer(), Type.Null()], {
      description: 'null, or letters, digits, ".", "-", "_" and blanks',
    }),
  ),
  ram: count(1, MOST),
  vcpus: count(1, MOST),
  disk: count(0, MOST),
  'OS-FLV-EXT-DATA:ephemeral': Type.Optional(count(0, MOST)),
  swap: Type.Optional(count(0, MOST)),
  rxtx_factor: Type.Optional(Type.Union([Type.Number(), Type.String({ maxLength: 40 })])),
  'os-flavor-access:is_public': Type.Optional(yesOrNo),
}
const createBody = bodyOf(Type.Object({ flavor: Type.Object(newFlavor, strict) }, strict))
const createBodyWithDescription = bodyOf(
  Type.Object({ flavor: Type.Object({ ...newFlavor, description: Type.Optional(description) }, strict) }, strict),
)
const updateBody = bodyOf(Type.Object({ flavor: Type.Object({ description }, strict) }, strict))
const specsBody = bodyOf(Type.Object({ extra_specs: extraSpecs }, strict))
const specBody = bodyOf(extraSpecs)
const tenant = Type.Object({ tenant: Type.String({ minLength: 1, maxLength: 255 }) }, strict)
const addAccess = bodyOf(Type.Object({ addTenantAccess: tenant }, strict))
const removeAccess = bodyOf(Type.Object({ removeTenantAccess: tenant }, strict))

const sortKeys: Readonly<Record<string, FlavorSortKey>> = {
  flavorid: 'id',
  id: 'id',
  name: 'name',
  vcpus: 'vcpus',
  memory_mb: 'ramMiB',
  root_gb: 'diskGiB',
  ephemeral_gb: 'ephemeralGiB',
  swap: 'swapMiB',
  created_at: 'createdAt',
}
const queryNames = ['limit', 'marker', 'is_public', 'minRam', 'minDisk', 'sort_key', 'sort_dir']

export const flavorRoutes: readonly Route[] = [
  { method: 'GET', path: '/flavors', handle: (call) => list(call, '/flavors', flavorSummary) },
  { method: 'GET', path: '/flavors/detail', handle: (call) => list(call, '/flavors/detail', flavorJson) },
  {
    method: 'GET',
    path: '/flavors/:id',
    handle: async (call) => ok({ flavor: flavorJson(call, await showFlavor(call.ports, call.caller, part(call, 'id'))) }),
  },
  { method: 'POST', path: '/flavors', handle: create },
  {
    method: 'PUT',
    path: '/flavors/:id',
    since: 55,
    async handle(call) {
      const { flavor } = updateBody(call.body)
      const change = { description: flavor.description }
      const changed = await changeFlavor(call.ports, call.caller, part(call, 'id'), (old) => ({ ...old, ...change }))
      return ok({ flavor: flavorJson(call, changed) })
    },
  },
  {
    method: 'DELETE',
    path: '/flavors/:id',
    async handle(call) {
      await deleteFlavor(call.ports, call.caller, part(call, 'id'))
      return accepted
    },
  },
  {
    method: 'GET',
    path: '/flavors/:id/os-extra_specs',
    handle: async (call) => ok({ extra_specs: (await showFlavor(call.ports, call.caller, part(call, 'id'))).extraSpecs }),
  },
  {
    method: 'POST',
    path: '/flavors/:id/os-extra_specs',
    async handle(call) {
      const specs = texts(specsBody(call.body).extra_specs)
      await setExtraSpecs(call.ports, call.caller, part(call, 'id'), specs)
      return ok({ extra_specs: specs })
    },
  },
  {
    method: 'GET',
    path: '/flavors/:id/os-extra_specs/:name',
    async handle(call) {
      const spec = part(call, 'name')
      return ok({ [spec]: extraSpecOf(await showFlavor(call.ports, call.caller, part(call, 'id')), spec) })
    },
  },
  {
    method: 'PUT',
    path: '/flavors/:id/os-extra_specs/:name',
    async handle(call) {
      const specs = texts(specBody(call.body))
      if (Object.keys(specs).join() !== part(call, 'name')) {
        throw new ServiceError('invalid-request', 'Request body contains too many items, or another name than the path')
      }
      await setExtraSpecs(call.ports, call.caller, part(call, 'id'), specs)
      return ok(specs)
    },
  },
  {
    method: 'DELETE',
    path: '/flavors/:id/os-extra_specs/:name',
    async handle(call) {
      await removeExtraSpec(call.ports, call.caller, part(call, 'id'), part(call, 'name'))
      return { status: 200 }
    },
  },
  {
    method: 'GET',
    path: '/flavors/:id/os-flavor-access',
    handle: async (call) => ok(accessJson(call, await listFlavorAccess(call.ports, call.caller, part(call, 'id')))),
  },
  { method: 'POST', path: '/flavors/:id/action', handle: act },
]

async function list(call: Call, path: string, show: (call: Call, flavor: Awaited<ReturnType<typeof showFlavor>>) => object) {
  const { ports, caller, query, minor } = call
  refuseUnknown(query, minor, queryNames)
  const limit = limitFrom(query)
  const found = await listFlavors(ports, caller, { ...flavorQuery(query), limit: limit + 1 })
  const flavors = found.slice(0, limit)
  const last = found.length > limit ? flavors.at(-1) : undefined
  return ok({
    flavors: flavors.map((flavor) => show(call, flavor)),
    ...(last ? { flavors_links: [nextLink(call.base + path, query, last.id)] } : {}),
  })
}

function flavorQuery(query: URLSearchParams): FlavorQuery {
  const isPublic = query.get('is_public')
  const marker = query.get('marker')
  const key = query.get('sort_key') ?? 'flavorid'
  const direction = query.get('sort_dir') ?? 'asc'
  const sortKey = Object.hasOwn(sortKeys, key) ? sortKeys[key] : undefined
  if (!sortKey || (direction !== 'asc' && direction !== 'desc')) {
    const message = `flavors are sorted by ${Object.keys(sortKeys).join(', ')}, asc or desc`
    throw new ServiceError('invalid-request', `Invalid input for query parameters sort_key, sort_dir: ${message}`)
  }
  return {
    ...(isPublic === null ? {} : { isPublic: isPublic.toLowerCase() === 'none' ? 'all' : isYes(isPublic) }),
    ...(marker === null ? {} : { marker }),
    minRam: least(query, 'minRam'),
    minDisk: least(query, 'minDisk'),
    sort: { key: sortKey, direction },
  }
}

function least(query: URLSearchParams, name: string): number {
  const text = query.get(name) ?? '0'
  if (/^\d{1,10}$/.test(text)) return Number(text)
  throw new ServiceError('invalid-request', `Invalid ${name} filter [${text.slice(0, 40)}]`)
}

async function create(call: Call) {
  const { flavor } = (call.minor >= 55 ? createBodyWithDescription : createBody)(call.body)
  const whole = (field: keyof typeof newFlavor, byDefault: number): number => {
    const value = Number(flavor[field as keyof typeof flavor] ?? byDefault)
    if (value <= MOST) return value
    throw new ServiceError(
      'invalid-request',
      `Invalid input for field/attribute ${field}. Value: ${value}. It is at most ${MOST}`,
    )
  }
  const { id } = flavor
  const made = await createFlavor(call.ports, call.caller, {
    ...(id === undefined || id === null || id === 'auto' ? {} : { id: String(id) }),
    name: flavor.name,
    description: 'description' in flavor ? ((flavor.description as string | null | undefined) ?? null) : null,
    vcpus: atLeastOne(whole('vcpus', 1), 'vcpus'),
    ramMiB: atLeastOne(whole('ram', 1), 'ram'),
    diskGiB: whole('disk', 0),
    ephemeralGiB: whole('OS-FLV-EXT-DATA:ephemeral', 0),
    swapMiB: whole('swap', 0),
    isPublic: isYes(String(flavor['os-flavor-access:is_public'] ?? true)),
  })
  return ok({ flavor: flavorJson(call, made) })
}

/** A number in quotes has met no minimum. */
function atLeastOne(value: number, field: string): number {
  if (value >= 1) return value
  throw new ServiceError(
    'invalid-request',
    `Invalid input for field/attribute ${field}. Value: ${value}. ${value} is less than the minimum of 1`,
  )
}

/** `addTenantAccess`, `removeTenantAccess`. */
async function act(call: Call) {
  const { ports, caller, body } = call
  const id = part(call, 'id')
  if (typeof body === 'object' && body !== null && 'removeTenantAccess' in body) {
    const flavor = await removeFlavorAccess(ports, caller, id, removeAccess(body).removeTenantAccess.tenant)
    return ok(accessJson(call, flavor.projects))
  }
  const flavor = await addFlavorAccess(ports, caller, id, addAccess(body).addTenantAccess.tenant)
  return ok(accessJson(call, flavor.projects))
}

const accessJson = (call: Call, projects: readonly string[]) => ({
  flavor_access: projects.map((projectId) => ({ flavor_id: part(call, 'id'), tenant_id: projectId })),
})

const texts = (specs: Readonly<Record<string, string | number>>): Record<string, string> =>
  Object.fromEntries(Object.entries(specs).map(([name, value]) => [name, String(value)]))
