import type { JsonSchema } from './schema-check.ts'

/**
 * The schemas of metadata definitions, as `/v2/schemas/metadefs/…` serves them and as bodies are checked by them.
 * Names, types, limits and formats are those of Glance 25; the descriptions are our own.
 */

const valueTypes = ['array', 'boolean', 'integer', 'number', 'object', 'string', null]
const createdAt: JsonSchema = { type: 'string', readOnly: true, description: 'When it was made', format: 'date-time' }
const updatedAt: JsonSchema = { type: 'string', readOnly: true, description: 'When it was last changed', format: 'date-time' }
const link: JsonSchema = { readOnly: true, type: 'string' }

const counts = {
  positiveInteger: { type: 'integer', minimum: 0 },
  positiveIntegerDefault0: { allOf: [{ $ref: '#/definitions/positiveInteger' }, { default: 0 }] },
} as const satisfies Record<string, JsonSchema>
const stringArray: JsonSchema = { type: 'array', items: { type: 'string' }, uniqueItems: true }

const propertyMembers = {
  name: { type: 'string', maxLength: 80 },
  title: { type: 'string' },
  description: { type: 'string' },
  operators: { type: 'array', items: { type: 'string' } },
  type: { type: 'string', enum: valueTypes },
  required: { $ref: '#/definitions/stringArray' },
  minimum: { type: 'number' },
  maximum: { type: 'number' },
  maxLength: { $ref: '#/definitions/positiveInteger' },
  minLength: { $ref: '#/definitions/positiveIntegerDefault0' },
  pattern: { type: 'string', format: 'regex' },
  enum: { type: 'array' },
  readonly: { type: 'boolean' },
  default: {},
  items: { type: 'object', properties: { type: { type: 'string', enum: valueTypes }, enum: { type: 'array' } } },
  maxItems: { $ref: '#/definitions/positiveInteger' },
  minItems: { $ref: '#/definitions/positiveIntegerDefault0' },
  uniqueItems: { type: 'boolean', default: false },
  additionalItems: { type: 'boolean' },
} as const satisfies Record<string, JsonSchema>

const definitions: Readonly<Record<string, JsonSchema>> = {
  ...counts,
  stringArray,
  property: {
    type: 'object',
    additionalProperties: { type: 'object', required: ['title', 'type'], properties: propertyMembers },
  },
}
const propertyDefinitions: Readonly<Record<string, JsonSchema>> = { ...counts, stringArray: { ...stringArray, minItems: 1 } }

export const namespaceSchema: JsonSchema = {
  name: 'namespace',
  properties: {
    namespace: {
      type: 'string',
      description: 'The name by which this namespace is addressed; it stands only once.',
      maxLength: 80,
    },
    display_name: { type: 'string', description: 'The name that a user interface shows.', maxLength: 80 },
    description: { type: 'string', description: 'What the definitions in here are for.', maxLength: 500 },
    visibility: { type: 'string', description: 'Who sees it: everyone, or its owner.', enum: ['public', 'private'] },
    protected: { type: 'boolean', description: 'While true, neither it nor anything in it can be deleted.' },
    owner: { type: 'string', description: 'The project that it belongs to.', maxLength: 255 },
    created_at: createdAt,
    updated_at: updatedAt,
    schema: link,
    self: link,
    resource_type_associations: {
      type: 'array',
      items: {
        type: 'object',
        properties: { name: { type: 'string' }, prefix: { type: 'string' }, properties_target: { type: 'string' } },
      },
    },
    properties: { $ref: '#/definitions/property' },
    objects: {
      type: 'array',
      items: {
        type: 'object',
        properties: {
          name: { type: 'string' },
          description: { type: 'string' },
          required: { $ref: '#/definitions/stringArray' },
          properties: { $ref: '#/definitions/property' },
        },
      },
    },
    tags: { type: 'array', items: { type: 'object', properties: { name: { type: 'string' } } } },
  },
  additionalProperties: false,
  definitions,
  required: ['namespace'],
}

export const resourceTypeSchema: JsonSchema = {
  name: 'resource_type_association',
  properties: {
    name: {
      type: 'string',
      description: 'The kind of resource, named as Heat names it where Heat has a name: OS::Glance::Image, OS::Nova::Flavor.',
      maxLength: 80,
    },
    prefix: {
      type: 'string',
      description:
        'Stands before each property name when the property is set on this kind of resource; ends in its separator, such as a colon.',
      maxLength: 80,
    },
    properties_target: {
      type: 'string',
      description: 'Which set of keys is meant where a resource has several: a volume has metadata of its own and of its image.',
      maxLength: 80,
    },
    created_at: createdAt,
    updated_at: updatedAt,
  },
  additionalProperties: false,
  required: ['name'],
}

export const propertySchema: JsonSchema = {
  name: 'property',
  properties: propertyMembers,
  additionalProperties: false,
  definitions: propertyDefinitions,
  required: ['type', 'title', 'name'],
}
/** A property inside an object or a namespace, where its name is the key that it stands under. */
export const namelessPropertySchema: JsonSchema = { ...propertySchema, required: ['type', 'title'] }

export const objectSchema: JsonSchema = {
  name: 'object',
  properties: {
    name: { type: 'string', maxLength: 80 },
    description: { type: 'string' },
    required: { $ref: '#/definitions/stringArray' },
    properties: { $ref: '#/definitions/property' },
    schema: link,
    self: link,
    created_at: createdAt,
    updated_at: updatedAt,
  },
  additionalProperties: false,
  definitions,
  required: ['name'],
}

export const tagSchema: JsonSchema = {
  name: 'tag',
  properties: { name: { type: 'string', maxLength: 80 }, created_at: createdAt, updated_at: updatedAt },
  additionalProperties: false,
  required: ['name'],
}

/** The body that sets several tags at once. */
export const tagListSchema: JsonSchema = {
  name: 'tags',
  properties: {
    tags: {
      type: 'array',
      items: {
        type: 'object',
        properties: { name: { type: 'string', maxLength: 80 } },
        required: ['name'],
        additionalProperties: false,
      },
    },
  },
  additionalProperties: false,
  required: ['tags'],
}

/** The schema of a list: definitions move to its root, where references look for them. */
export function collectionOf(
  name: string,
  { definitions: shared, ...item }: JsonSchema,
  form: 'array' | 'object' = 'array',
): JsonSchema {
  const items: JsonSchema = form === 'array' ? { type: 'array', items: item } : { type: 'object', additionalProperties: item }
  return {
    name,
    properties: { [name]: items, first: { type: 'string' }, next: { type: 'string' }, schema: { type: 'string' } },
    links: [
      { rel: 'first', href: '{first}' },
      { rel: 'next', href: '{next}' },
      { rel: 'describedby', href: '{schema}' },
    ],
    ...(shared ? { definitions: shared } : {}),
  }
}
