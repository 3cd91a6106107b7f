import type { FastifyInstance, FastifyReply, FastifyRequest, HTTPMethods } from 'fastify'
import type { Caller } from '../../../base/caller.ts'
import { ServiceError } from '../../../base/errors.ts'
import {
  createAssociation,
  deleteAssociation,
  listAssociations,
  listResourceTypes,
} from '../../../images/metadefs/associations.ts'
import type { MetadefPorts } from '../../../images/metadefs/metadef.ts'
import {
  asSeenBy,
  createNamespace,
  deleteNamespace,
  listNamespaces,
  namespaceSortKeys,
  showNamespace,
  updateNamespace,
} from '../../../images/metadefs/namespaces.ts'
import {
  createObject,
  deleteObject,
  deleteObjects,
  listObjects,
  showObject,
  updateObject,
} from '../../../images/metadefs/objects.ts'
import {
  createProperty,
  deleteProperties,
  deleteProperty,
  listProperties,
  showProperty,
  updateProperty,
} from '../../../images/metadefs/properties.ts'
import { isObject } from '../../../images/metadefs/schema-check.ts'
import {
  createTag,
  createTags,
  deleteTag,
  deleteTags,
  listTags,
  showTag,
  tagSortKeys,
  updateTag,
} from '../../../images/metadefs/tags.ts'
import { callerOf } from '../api.ts'
import { renderGlanceError } from './error-body.ts'
import { lastOf, limitFrom, orderFrom, type Query, queryAgain, visibilityFrom } from './metadefs-query.ts'
import {
  renderAssociation,
  renderAttributes,
  renderCreated,
  renderListed,
  renderNamespace,
  renderObject,
  renderProperties,
  renderProperty,
  renderResourceType,
  renderSentObject,
  renderTag,
} from './metadefs-render.ts'

const DEFAULT_LIMIT = 25
const MAX_LIMIT = 1000

interface Asked {
  readonly caller: Caller
  readonly namespace: string
  /** The last part of the path, where it names a thing in the namespace. */
  readonly name: string
  readonly query: Query
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  /** The body, which must be a JSON object without these members. @throws ServiceError `invalid-request`, `denied` */
  body(readOnly?: readonly string[]): Readonly<Record<string, unknown>>
}
type Handler = (asked: Asked, ports: MetadefPorts) => Promise<{ readonly status: number; readonly body?: object }>
type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

const ok = (body: object) => ({ status: 200, body })
const created = (body: object) => ({ status: 201, body })
const gone = { status: 204 } as const
const links = ['self', 'schema', 'created_at', 'updated_at']
const times = ['created_at', 'updated_at']

const namespaces = '/metadefs/namespaces'
const one = `${namespaces}/:namespace`

/** Every path of the metadata definitions, and what each method does there. */
const routes: Readonly<Record<string, Partial<Record<Method, Handler>>>> = {
  '/metadefs/resource_types': {
    GET: async (_, ports) => ok({ resource_types: (await listResourceTypes(ports)).map(renderResourceType) }),
  },
  [namespaces]: {
    GET: async ({ caller, query }, ports) => {
      const limit = Math.min(limitFrom(query, 0) ?? DEFAULT_LIMIT, MAX_LIMIT)
      const [marker, visibility, types] = [
        lastOf(query, 'marker'),
        visibilityFrom(query, ['public', 'private']),
        lastOf(query, 'resource_types'),
      ]
      const found = await listNamespaces(ports, caller, {
        limit,
        ...orderFrom(query, namespaceSortKeys),
        ...(marker ? { marker } : {}),
        ...(visibility ? { visibility } : {}),
        ...(types === undefined ? {} : { resourceTypes: types.split(',') }),
      })
      const last = found.length === limit ? found.at(-1) : undefined
      return ok({
        namespaces: found.map(renderListed),
        first: `/v2${namespaces}${queryAgain(query)}`,
        ...(last ? { next: `/v2${namespaces}${queryAgain(query, last.namespace)}` } : {}),
        schema: '/v2/schemas/metadefs/namespaces',
      })
    },
    POST: async ({ caller, body, request, reply }, ports) => {
      const sent = body(links)
      const namespace = await createNamespace(ports, caller, sent)
      const here = request.url.split('?', 1)[0]
      reply.header(
        'location',
        `${request.protocol}://${request.host}${here}/${encodeURIComponent(namespace.namespace).replaceAll('%3A', ':')}`,
      )
      return created(renderCreated(namespace, sent))
    },
  },
  [one]: {
    GET: async ({ caller, namespace, query }, ports) => {
      const found = await showNamespace(ports, caller, namespace)
      const resourceType = lastOf(query, 'resource_type')
      return ok(renderNamespace(resourceType ? asSeenBy(found, resourceType) : found))
    },
    PUT: async ({ caller, namespace, body }, ports) =>
      ok(renderAttributes(await updateNamespace(ports, caller, namespace, body(links)))),
    DELETE: async ({ caller, namespace }, ports) => {
      await deleteNamespace(ports, caller, namespace)
      return gone
    },
  },
  [`${one}/resource_types`]: {
    GET: async ({ caller, namespace }, ports) =>
      ok({ resource_type_associations: (await listAssociations(ports, caller, namespace)).map(renderAssociation) }),
    POST: async ({ caller, namespace, body }, ports) =>
      created(renderAssociation(await createAssociation(ports, caller, namespace, body(times)))),
  },
  [`${one}/resource_types/:name`]: {
    DELETE: async ({ caller, namespace, name }, ports) => {
      await deleteAssociation(ports, caller, namespace, name)
      return gone
    },
  },
  [`${one}/properties`]: {
    GET: async ({ caller, namespace }, ports) =>
      ok({ properties: renderProperties(await listProperties(ports, caller, namespace)) }),
    POST: async ({ caller, namespace, body }, ports) =>
      created(renderProperty(await createProperty(ports, caller, namespace, body(times)))),
    DELETE: async ({ caller, namespace }, ports) => {
      await deleteProperties(ports, caller, namespace)
      return gone
    },
  },
  [`${one}/properties/:name`]: {
    GET: async ({ caller, namespace, name, query }, ports) =>
      ok(renderProperty(await showProperty(ports, caller, namespace, name, lastOf(query, 'resource_type') || undefined))),
    PUT: async ({ caller, namespace, name, body }, ports) =>
      ok(renderProperty(await updateProperty(ports, caller, namespace, name, body(times)))),
    DELETE: async ({ caller, namespace, name }, ports) => {
      await deleteProperty(ports, caller, namespace, name)
      return gone
    },
  },
  [`${one}/objects`]: {
    GET: async ({ caller, namespace, query }, ports) => {
      limitFrom(query, 1) // Glance checks the parameters of a page, and then gives the whole list
      orderFrom({ sort_dir: query.sort_dir }, ['created_at'])
      visibilityFrom(query, ['public', 'private', 'shared'])
      const objects = await listObjects(ports, caller, namespace)
      return ok({ objects: objects.map((object) => renderObject(namespace, object)), schema: 'v2/schemas/metadefs/objects' })
    },
    POST: async ({ caller, namespace, body }, ports) => {
      const sent = body(links)
      return created(renderSentObject(namespace, await createObject(ports, caller, namespace, sent), sent))
    },
    DELETE: async ({ caller, namespace }, ports) => {
      await deleteObjects(ports, caller, namespace)
      return gone
    },
  },
  [`${one}/objects/:name`]: {
    GET: async ({ caller, namespace, name }, ports) =>
      ok(renderObject(namespace, await showObject(ports, caller, namespace, name))),
    PUT: async ({ caller, namespace, name, body }, ports) => {
      const sent = body(links)
      return ok(renderSentObject(namespace, await updateObject(ports, caller, namespace, name, sent), sent))
    },
    DELETE: async ({ caller, namespace, name }, ports) => {
      await deleteObject(ports, caller, namespace, name)
      return gone
    },
  },
  [`${one}/tags`]: {
    GET: async ({ caller, namespace, query }, ports) => {
      const [limit, marker] = [limitFrom(query, 0), lastOf(query, 'marker')]
      visibilityFrom(query, ['public', 'private', 'shared'])
      const tags = await listTags(ports, caller, namespace, {
        ...orderFrom(query, tagSortKeys),
        ...(limit === undefined ? {} : { limit }),
        ...(marker ? { marker } : {}),
      })
      return ok({ tags: tags.map(({ name }) => ({ name })) })
    },
    POST: async ({ caller, namespace, body, request }, ports) => {
      const append = /^(1|t|true|on|y|yes)$/i.test(String(request.headers['x-openstack-append'] ?? ''))
      const names = await createTags(ports, caller, namespace, body(times), append)
      return created({ tags: names.map((name) => ({ name })) })
    },
    DELETE: async ({ caller, namespace }, ports) => {
      await deleteTags(ports, caller, namespace)
      return gone
    },
  },
  [`${one}/tags/:name`]: {
    GET: async ({ caller, namespace, name }, ports) => ok(renderTag(await showTag(ports, caller, namespace, name))),
    POST: async ({ caller, namespace, name, request }, ports) => {
      assertNoBody(request.body)
      return created(renderTag(await createTag(ports, caller, namespace, name)))
    },
    PUT: async ({ caller, namespace, name, body }, ports) =>
      ok(renderTag(await updateTag(ports, caller, namespace, name, body(times)))),
    DELETE: async ({ caller, namespace, name }, ports) => {
      await deleteTag(ports, caller, namespace, name)
      return gone
    },
  },
}

/**
 * Serves the metadata definitions below `app`'s prefix, which is that of the version: `/image/v2`.
 * Bodies are read as JSON whatever their media type says, as Glance reads them.
 */
export function registerMetadefs(app: FastifyInstance, ports: MetadefPorts): void {
  app.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', { parseAs: 'buffer' }, (_, body, done) => done(null, body))
    for (const [url, handlers] of Object.entries(routes)) {
      for (const [method, handle] of Object.entries(handlers) as [Method, Handler][]) {
        scope.route({ method, url, exposeHeadRoute: false, handler: (request, reply) => answer(handle, ports, request, reply) })
      }
      refuseOtherMethods(scope, url, Object.keys(handlers))
    }
  })
}

async function answer(handle: Handler, ports: MetadefPorts, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { namespace = '', name = '' } = request.params as { namespace?: string; name?: string }
  const { status, body } = await handle(
    {
      caller: callerOf(request),
      namespace,
      name,
      query: request.query as Query,
      request,
      reply,
      body: (readOnly = []) => jsonObject(request.body, readOnly),
    },
    ports,
  )
  return body
    ? reply.code(status).header('content-type', 'application/json').send(JSON.stringify(body))
    : reply.code(status).send()
}

function assertNoBody(bytes: unknown): void {
  if (bytes instanceof Uint8Array && bytes.length > 0) {
    throw new ServiceError('invalid-request', 'this request takes no body: the tag is named by the path')
  }
}

function jsonObject(bytes: unknown, readOnly: readonly string[]): Readonly<Record<string, unknown>> {
  if (!(bytes instanceof Uint8Array) || bytes.length === 0) {
    throw new ServiceError('invalid-request', 'this request needs a body: send a JSON object')
  }
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw new ServiceError('invalid-request', 'the body is not well-formed JSON in UTF-8', {}, { cause })
  }
  if (!isObject(value)) throw new ServiceError('invalid-request', 'the body must be a JSON object')
  for (const name of readOnly) {
    if (Object.hasOwn(value, name)) throw new ServiceError('denied', `"${name}" is set by the service and can only be read`)
  }
  return value
}

const allMethods: readonly HTTPMethods[] = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

/** A method that a path does not have: 405, and `Allow` names those that it has. */
export function refuseOtherMethods(scope: FastifyInstance, url: string, allowed: readonly string[]): void {
  scope.route({
    method: allMethods.filter((method) => !allowed.includes(method)),
    url,
    handler: (request, reply) => {
      const error = new ServiceError('unsupported', `there is no ${request.method} here; there is ${allowed.join(', ')}`)
      const { contentType, body } = renderGlanceError(error, 405, request.headers.accept)
      return reply.code(405).header('allow', allowed.join(', ')).type(contentType).send(body)
    },
  })
}
