import { ServiceError } from '../../base/errors.ts'
import type { PropertySchema } from './metadef.ts'
import { checkSchema, isObject } from './schema-check.ts'
import { namelessPropertySchema } from './schemas.ts'

/** The order in which Glance shows the members of a property. */
const members = [
  'name',
  'type',
  'title',
  'description',
  'operators',
  'default',
  'readonly',
  'minimum',
  'maximum',
  'enum',
  'pattern',
  'minLength',
  'maxLength',
  'items',
  'uniqueItems',
  'minItems',
  'maxItems',
  'additionalItems',
] as const

/**
 * Brings the definition of a property into the form in which it is kept: a default becomes text (a list or an object has
 * none), bounds become whole numbers, choices must be text. A `pattern` is kept as text and never run.
 *
 * @throws ServiceError `invalid-request` for what the schema refuses, and for what it lets pass although it has no meaning
 */
export function propertySchemaFrom(value: unknown, where: string): PropertySchema {
  checkSchema(value, namelessPropertySchema)
  const given = value as Readonly<Record<string, unknown>>
  if (Object.hasOwn(given, 'required')) {
    throw new ServiceError('invalid-request', `${where} must not have "required": that is said by the object it stands in`)
  }
  const kept: Record<string, unknown> = {}
  for (const name of members) if (Object.hasOwn(given, name)) kept[name] = memberFrom(name, given[name], where)
  return kept
}

function memberFrom(name: (typeof members)[number], value: unknown, where: string): unknown {
  switch (name) {
    case 'default':
      return textOf(value)
    case 'minimum':
    case 'maximum':
      return Math.trunc(value as number)
    case 'enum':
      return texts(value, `${where}.enum`)
    case 'items':
      return itemsFrom(value, `${where}.items`)
    default:
      return value
  }
}

/** A default as Glance keeps it: always text. */
function textOf(value: unknown): string | null {
  if (typeof value === 'string') return value
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  return typeof value === 'number' ? String(value) : null
}

function itemsFrom(value: unknown, where: string): PropertySchema {
  if (!isObject(value) || typeof value.type !== 'string') {
    throw new ServiceError('invalid-request', `${where} must say the "type" of an item`)
  }
  const unknown = Object.keys(value).find((name) => name !== 'type' && name !== 'enum')
  if (unknown !== undefined) throw new ServiceError('invalid-request', `${where} has only "type" and "enum"`)
  return value.enum === undefined ? { type: value.type } : { type: value.type, enum: texts(value.enum, `${where}.enum`) }
}

function texts(value: unknown, where: string): readonly string[] {
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
    throw new ServiceError('invalid-request', `${where} must be a list of texts`)
  }
  return value
}

export interface KeyedProperty {
  readonly key: string
  readonly schema: PropertySchema
}

/** The properties of an object or a namespace, given as one JSON object. @throws ServiceError `invalid-request` */
export function keyedPropertiesFrom(value: unknown, where: string): readonly KeyedProperty[] {
  if (value === undefined) return []
  if (!isObject(value)) throw new ServiceError('invalid-request', `${where} must be an object of properties`)
  return Object.entries(value).map(([key, schema]) => {
    if (key === '' || key.length > 80) {
      throw new ServiceError('invalid-request', `${where} has a property whose name is empty or longer than 80`)
    }
    return { key, schema: propertySchemaFrom(schema, `${where}.${key}`) }
  })
}
