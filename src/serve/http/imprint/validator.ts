import type { TSchema } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import { Value } from '@sinclair/typebox/value'
import { ServiceError } from '../../../base/errors.ts'

/**
 * Holds a request to its schema as it is: a body is neither converted nor relieved of what the schema does not know. Parameters
 * and queries are text, of which numbers are made.
 */
export function validatorOf(
  schema: TSchema,
  part: string,
): (data: unknown) => { readonly value: unknown } | { readonly error: Error } {
  const checker = TypeCompiler.Compile(schema)
  return (data) => {
    const value = part === 'body' ? data : Value.Default(schema, Value.Convert(schema, data))
    if (checker.Check(value)) return { value }
    const first = checker.Errors(value).First()
    const where = `${part}${(first?.path ?? '').replaceAll('/', '.')}`
    const message = `${where.slice(0, 200)}: ${(first?.message ?? 'not as described').toLowerCase()}; see /v1/openapi.json`
    return { error: new ServiceError('invalid-request', message) }
  }
}
