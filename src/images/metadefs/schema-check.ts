import { ServiceError } from '../../base/errors.ts'

/**
 * The part of JSON Schema (draft 4) in which the metadata schemas are written. The schema that is served is the one that is
 * enforced; keywords that only describe (`description`, `format`, `readOnly`, `default`, `name`) are passed on and not checked.
 */
export interface JsonSchema {
  readonly name?: string
  readonly type?: string | readonly string[]
  readonly description?: string
  readonly format?: string
  readonly readOnly?: boolean
  readonly default?: unknown
  readonly enum?: readonly unknown[]
  readonly maxLength?: number
  readonly minLength?: number
  readonly minimum?: number
  readonly minItems?: number
  readonly uniqueItems?: boolean
  readonly required?: readonly string[]
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly additionalProperties?: boolean | JsonSchema
  readonly items?: JsonSchema
  readonly allOf?: readonly JsonSchema[]
  readonly $ref?: string
  readonly definitions?: Readonly<Record<string, JsonSchema>>
  readonly links?: readonly { readonly rel: string; readonly href: string }[]
}

const MAX_DEPTH = 16 // the schemas nest six deep and refer in no circle; a slip of ours must not become a stack overflow

/**
 * Checks `value` against `schema`; costs one visit of each member of `value`.
 * @throws ServiceError `invalid-request`, naming the member and what it must be
 */
export function checkSchema(value: unknown, schema: JsonSchema): void {
  if (schema.properties && !isObject(value)) throw new ServiceError('invalid-request', 'the body must be a JSON object')
  checkAt(value, schema, schema.definitions ?? {}, 'body', 0)
}

function checkAt(
  value: unknown,
  schema: JsonSchema,
  definitions: Readonly<Record<string, JsonSchema>>,
  path: string,
  depth: number,
): void {
  if (depth > MAX_DEPTH) throw new Error(`schema nests deeper than ${MAX_DEPTH} at ${path}`)
  const refuse = (must: string): never => {
    throw new ServiceError('invalid-request', `${path} ${must}`, { path })
  }
  const into = (inner: unknown, by: JsonSchema, at: string): void => checkAt(inner, by, definitions, at, depth + 1)

  if (schema.$ref !== undefined) {
    const target = definitions[schema.$ref.replace('#/definitions/', '')]
    if (!target) throw new Error(`schema refers to ${schema.$ref}, which it does not define`)
    into(value, target, path)
    return
  }
  for (const part of schema.allOf ?? []) into(value, part, path)

  const types = schema.type === undefined ? [] : typeof schema.type === 'string' ? [schema.type] : schema.type
  if (types.length > 0 && !types.some((type) => isOfType(value, type))) refuse(`must be of type ${types.join(' or ')}`)
  if (schema.enum && !schema.enum.includes(value)) {
    refuse(`must be one of ${schema.enum.filter((choice) => choice !== null).join(', ')}`)
  }
  if (typeof value === 'string') {
    const letters = lettersOf(value)
    if (schema.maxLength !== undefined && letters > schema.maxLength) refuse(`must not be longer than ${schema.maxLength}`)
    if (schema.minLength !== undefined && letters < schema.minLength) refuse(`must not be shorter than ${schema.minLength}`)
    if (value.includes('\0') || !value.isWellFormed()) refuse('must be text without NUL and without half a surrogate pair')
  }
  if (typeof value === 'number' && schema.minimum !== undefined && value < schema.minimum) {
    refuse(`must be ${schema.minimum} or more`)
  }
  if (Array.isArray(value)) {
    if (schema.minItems !== undefined && value.length < schema.minItems) refuse(`must have ${schema.minItems} items or more`)
    if (schema.uniqueItems && new Set(value.map((item) => JSON.stringify(item))).size < value.length) {
      refuse('must not name the same thing twice')
    }
    if (schema.items) for (const [index, item] of value.entries()) into(item, schema.items, `${path}[${index}]`)
  } else if (isObject(value)) {
    for (const name of schema.required ?? []) if (!Object.hasOwn(value, name)) refuse(`must have "${name}"`)
    for (const [name, member] of Object.entries(value)) {
      const at = `${path}.${name.slice(0, 80)}`
      const known = schema.properties && Object.hasOwn(schema.properties, name) ? schema.properties[name] : undefined
      if (known) into(member, known, at)
      else if (schema.additionalProperties === false) refuse(`must not have "${name.slice(0, 80)}"`)
      else if (typeof schema.additionalProperties === 'object') into(member, schema.additionalProperties, at)
    }
  }
}

export const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Unicode characters, as the limits count them; `length` would count an emoji twice. */
function lettersOf(text: string): number {
  let letters = 0
  for (const _ of text) letters += 1
  return letters
}

function isOfType(value: unknown, type: string): boolean {
  switch (type) {
    case 'null':
      return value === null
    case 'array':
      return Array.isArray(value)
    case 'object':
      return isObject(value)
    case 'integer':
      return typeof value === 'number' && Number.isSafeInteger(value)
    default:
      return typeof value === type
  }
}
