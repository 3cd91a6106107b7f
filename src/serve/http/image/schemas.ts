import type { FastifyInstance } from 'fastify'
import type { JsonSchema } from '../../../images/metadefs/schema-check.ts'
import {
  collectionOf,
  namelessPropertySchema,
  namespaceSchema,
  objectSchema,
  propertySchema,
  resourceTypeSchema,
  tagSchema,
} from '../../../images/metadefs/schemas.ts'
import { refuseOtherMethods } from './metadefs.ts'
import { imageSchema, memberSchema, plainCollectionOf, taskListItemSchema, taskSchema } from './schemas-image.ts'

/** What stands under `/v2/schemas/`. */
export const schemas: Readonly<Record<string, JsonSchema>> = {
  image: imageSchema,
  images: collectionOf('images', imageSchema),
  member: memberSchema,
  members: plainCollectionOf('members', memberSchema),
  task: taskSchema,
  tasks: plainCollectionOf('tasks', taskListItemSchema),
  'metadefs/namespace': namespaceSchema,
  'metadefs/namespaces': collectionOf('namespaces', namespaceSchema),
  'metadefs/resource_type': resourceTypeSchema,
  'metadefs/resource_types': collectionOf('resource_type_associations', resourceTypeSchema),
  'metadefs/property': propertySchema,
  'metadefs/properties': collectionOf('properties', namelessPropertySchema, 'object'),
  'metadefs/object': objectSchema,
  'metadefs/objects': collectionOf('objects', objectSchema),
  'metadefs/tag': tagSchema,
  'metadefs/tags': collectionOf('tags', tagSchema),
}

/** Serves the schemas below `app`'s prefix, which is that of the version: `/image/v2`. */
export function registerSchemas(app: FastifyInstance): void {
  for (const [name, schema] of Object.entries(schemas)) {
    const body = JSON.stringify(schema)
    const url = `/schemas/${name}`
    app.route({
      method: 'GET',
      url,
      exposeHeadRoute: false,
      handler: (_, reply) => reply.header('content-type', 'application/json').send(body),
    })
    refuseOtherMethods(app, url, ['GET'])
  }
}
