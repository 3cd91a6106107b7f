import type { TSchema } from '@sinclair/typebox'
import { statusOf } from '../api.ts'
import type { Route } from './route.ts'
import { ErrorBody } from './schemas.ts'

/** The OpenAPI 3.1 document of `/v1`, made from the routes themselves: TypeBox schemas are JSON Schema already. */
export function openApiOf(routes: readonly Route[], version: string): object {
  const paths: Record<string, Record<string, object>> = {}
  for (const one of routes) {
    const path = `/v1${one.path.replace(/:(\w+)/g, '{$1}')}`
    paths[path] = { ...paths[path], [one.method.toLowerCase()]: operationOf(one) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Imprint',
      version,
      description:
        'What no cloud API has: uploads by chunks, the four sizes of an image, the store, quotas and the audit record.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    paths,
    components: {
      schemas: { Error: ErrorBody },
      securitySchemes: { token: { type: 'apiKey', in: 'header', name: 'X-Auth-Token' } },
    },
    security: [{ token: [] }],
  }
}

function operationOf(one: Route): object {
  const takes = one.takes ?? 'application/json'
  const gives = one.reply.gives ?? 'application/json'
  const body = one.body ?? (one.takes ? { type: 'string', format: 'binary' } : undefined)
  const failures = Map.groupBy(one.errors, (code) => statusOf[code])
  const answer = one.reply.body ?? (one.reply.gives ? { type: 'string', format: 'binary' } : undefined)
  return {
    summary: one.summary,
    description: [one.description, `Who may: ${one.who}.`].filter(Boolean).join('\n\n'),
    ...(one.auth === 'none' ? { security: [] } : {}),
    parameters: [...parametersOf(one.params, 'path'), ...parametersOf(one.query, 'query')],
    ...(body ? { requestBody: { required: true, content: { [takes]: { schema: body } } } } : {}),
    responses: {
      [one.reply.status]: {
        description: one.reply.description,
        ...(answer ? { content: { [gives]: { schema: answer } } } : {}),
      },
      ...Object.fromEntries(
        [...failures].map(([status, codes]) => [
          status,
          {
            description: codes.join(' or '),
            content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
          },
        ]),
      ),
    },
  }
}

function parametersOf(schema: TSchema | undefined, where: 'path' | 'query'): object[] {
  const { properties = {}, required = [] } = (schema ?? {}) as { properties?: Record<string, TSchema>; required?: string[] }
  return Object.entries(properties).map(([name, one]) => ({
    name,
    in: where,
    required: required.includes(name),
    ...(one.description ? { description: one.description as string } : {}),
    schema: one,
  }))
}
