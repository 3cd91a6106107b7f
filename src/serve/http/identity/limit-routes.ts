import {
  createLimits,
  createRegisteredLimits,
  deleteLimit,
  deleteRegisteredLimit,
  getLimit,
  getRegisteredLimit,
  listLimits,
  listRegisteredLimits,
  type NewLimit,
  type NewRegisteredLimit,
  updateLimit,
  updateRegisteredLimit,
} from '../../../identity/limits.ts'
import { type Fields, rules } from './fields.ts'
import { showLimit, shownList, showRegisteredLimit } from './presentation.ts'
import { invalid } from './refusals.ts'
import { created, noContent, ok, type Route } from './route.ts'

/** Clients know limits as signed 32-bit numbers; −1 is no limit. */
const MAX_LIMIT = 0x7fffffff
const MAX_AT_ONCE = 100

export const limitRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/limits/model',
    handle: () =>
      ok({
        model: { name: 'flat', description: 'Each project is held to its own limits: there are no projects within projects.' },
      }),
  },
  {
    method: 'GET',
    path: '/registered_limits',
    async handle({ ports, caller, query, base }) {
      const filter = { query, fields: ['service_id', 'region_id', 'resource_name'] }
      const found = await listRegisteredLimits(ports, caller)
      return ok(
        shownList('registered_limits', found, (limit) => showRegisteredLimit(limit, base), filter, `${base}/registered_limits`),
      )
    },
  },
  {
    method: 'POST',
    path: '/registered_limits',
    verb: 'registered-limit:change',
    async handle({ ports, caller, body, base }) {
      const wanted = atLeastOne(body.list('registered_limits', MAX_AT_ONCE)).map(readRegisteredLimit)
      const made = await createRegisteredLimits(ports, caller, wanted)
      return created({ registered_limits: made.map((limit) => showRegisteredLimit(limit, base)) })
    },
  },
  {
    method: 'GET',
    path: '/registered_limits/:limitId',
    async handle({ ports, caller, params, base }) {
      return ok({ registered_limit: showRegisteredLimit(await getRegisteredLimit(ports, caller, params.limitId ?? ''), base) })
    },
  },
  {
    method: 'PATCH',
    path: '/registered_limits/:limitId',
    verb: 'registered-limit:change',
    async handle({ ports, caller, params, body, base }) {
      const changes = readRegisteredChanges(body.object('registered_limit'))
      const limit = await updateRegisteredLimit(ports, caller, params.limitId ?? '', changes)
      return ok({ registered_limit: showRegisteredLimit(limit, base) })
    },
  },
  {
    method: 'DELETE',
    path: '/registered_limits/:limitId',
    async handle({ ports, caller, params }) {
      await deleteRegisteredLimit(ports, caller, params.limitId ?? '')
      return noContent
    },
  },
  {
    method: 'GET',
    path: '/limits',
    async handle({ ports, caller, query, base }) {
      const projectId = query.text('project_id')
      const found = await listLimits(ports, caller, projectId === undefined ? {} : { projectId })
      const filter = { query, fields: ['service_id', 'region_id', 'resource_name', 'domain_id'] }
      return ok(shownList('limits', found, (limit) => showLimit(limit, base), filter, `${base}/limits`))
    },
  },
  {
    method: 'POST',
    path: '/limits',
    verb: 'limit:change',
    async handle({ ports, caller, body, base }) {
      const made = await createLimits(ports, caller, atLeastOne(body.list('limits', MAX_AT_ONCE)).map(readLimit))
      return created({ limits: made.map((limit) => showLimit(limit, base)) })
    },
  },
  {
    method: 'GET',
    path: '/limits/:limitId',
    async handle({ ports, caller, params, base }) {
      return ok({ limit: showLimit(await getLimit(ports, caller, params.limitId ?? ''), base) })
    },
  },
  {
    method: 'PATCH',
    path: '/limits/:limitId',
    verb: 'limit:change',
    async handle({ ports, caller, params, body, base }) {
      const fields = body.object('limit')
      fields.only(new Set(['resource_limit', 'description']))
      const resourceLimit = fields.optionalInteger('resource_limit', -1, MAX_LIMIT)
      const description = fields.nullableText('description', rules.free)
      const limit = await updateLimit(ports, caller, params.limitId ?? '', {
        ...(resourceLimit === undefined ? {} : { resourceLimit }),
        ...(description === undefined ? {} : { description }),
      })
      return ok({ limit: showLimit(limit, base) })
    },
  },
  {
    method: 'DELETE',
    path: '/limits/:limitId',
    verb: 'limit:change',
    async handle({ ports, caller, params }) {
      await deleteLimit(ports, caller, params.limitId ?? '')
      return noContent
    },
  },
]

function atLeastOne(items: readonly Fields[]): readonly Fields[] {
  if (items.length === 0) throw invalid('the list is empty: give at least one limit')
  return items
}

const registeredFields = new Set(['service_id', 'region_id', 'resource_name', 'default_limit', 'description'])

function readRegisteredLimit(fields: Fields): NewRegisteredLimit {
  fields.only(registeredFields)
  return {
    serviceId: fields.text('service_id', rules.id),
    regionId: fields.nullableText('region_id', rules.reference) ?? null,
    resourceName: fields.text('resource_name', rules.resource),
    defaultLimit: fields.integer('default_limit', -1, MAX_LIMIT),
    description: fields.nullableText('description', rules.free) ?? null,
  }
}

function readRegisteredChanges(fields: Fields): Partial<NewRegisteredLimit> {
  fields.only(registeredFields)
  const serviceId = fields.optionalText('service_id', rules.id)
  const regionId = fields.nullableText('region_id', rules.reference)
  const resourceName = fields.optionalText('resource_name', rules.resource)
  const defaultLimit = fields.optionalInteger('default_limit', -1, MAX_LIMIT)
  const description = fields.nullableText('description', rules.free)
  return {
    ...(serviceId === undefined ? {} : { serviceId }),
    ...(regionId === undefined ? {} : { regionId }),
    ...(resourceName === undefined ? {} : { resourceName }),
    ...(defaultLimit === undefined ? {} : { defaultLimit }),
    ...(description === undefined ? {} : { description }),
  }
}

function readLimit(fields: Fields): NewLimit {
  if (fields.has('domain_id')) throw invalid('domain_id: limits are set for projects here, name a project_id')
  fields.only(new Set(['project_id', 'service_id', 'region_id', 'resource_name', 'resource_limit', 'description']))
  return {
    projectId: fields.text('project_id', rules.id),
    serviceId: fields.text('service_id', rules.id),
    regionId: fields.nullableText('region_id', rules.reference) ?? null,
    resourceName: fields.text('resource_name', rules.resource),
    resourceLimit: fields.integer('resource_limit', -1, MAX_LIMIT),
    description: fields.nullableText('description', rules.free) ?? null,
  }
}
