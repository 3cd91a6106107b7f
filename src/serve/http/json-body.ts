import type { Static, TSchema } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import { ValueErrorType } from '@sinclair/typebox/errors'
import { ServiceError } from '../../base/errors.ts'

/** Deeper than any request of this API, and far from where writing JSON again would overflow the stack. */
const MAX_DEPTH = 16
const MAX_SHOWN = 200

/** @throws ServiceError `invalid-request` */
export function parseJson(text: string): unknown {
  if (text.trim() === '') return undefined
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new ServiceError('invalid-request', 'malformed request body: it is not valid JSON')
  }
  assertShape(value, 0)
  return value
}

function assertShape(value: unknown, depth: number): void {
  if (typeof value === 'string' && !value.isWellFormed()) {
    throw new ServiceError('invalid-request', 'malformed request body: a string has half of a surrogate pair')
  }
  if (typeof value !== 'object' || value === null) return
  if (depth >= MAX_DEPTH) throw new ServiceError('invalid-request', `malformed request body: deeper than ${MAX_DEPTH} levels`)
  for (const [name, inner] of Object.entries(value)) {
    if (name === '__proto__') throw new ServiceError('invalid-request', 'malformed request body: a field is named __proto__')
    assertShape(name, depth)
    assertShape(inner, depth + 1)
  }
}

/**
 * Holds a body to its schema as it is: nothing is converted.
 * @returns throws ServiceError `invalid-request`, in the form of Nova's messages
 */
export function bodyOf<T extends TSchema>(schema: T): (body: unknown) => Static<T> {
  const checker = TypeCompiler.Compile(schema)
  return (body) => {
    if (checker.Check(body)) return body
    const first = checker.Errors(body).First()
    throw new ServiceError('invalid-request', first ? problemOf(first, body) : 'the request body is not as described')
  }
}

interface Mismatch {
  readonly type: ValueErrorType
  readonly path: string
  readonly value: unknown
  readonly message: string
  readonly schema: TSchema
}

function problemOf({ type, path, value, message, schema }: Mismatch, body: unknown): string {
  const names = path
    .split('/')
    .slice(1)
    .map((name) => name.replaceAll('~1', '/').replaceAll('~0', '~'))
  const last = names.at(-1) ?? ''
  if (type === ValueErrorType.ObjectRequiredProperty) return inField(names.at(-2), undefined, `'${last}' is a required property`)
  if (type === ValueErrorType.ObjectAdditionalProperties) {
    return inField(names.at(-2), undefined, `Additional properties are not allowed ('${last.slice(0, 80)}' was unexpected)`)
  }
  if (body === undefined) return 'None is not of type object: this request needs a body in JSON'
  const says = typeof schema.description === 'string' ? schema.description : message.toLowerCase()
  return inField(last, value, `${shown(value)} is not as expected: ${says}`)
}

const inField = (name: string | undefined, value: unknown, problem: string): string =>
  name === undefined || name === ''
    ? problem
    : `Invalid input for field/attribute ${name.slice(0, 80)}.${value === undefined ? '' : ` Value: ${shown(value)}.`} ${problem}`

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text
}
