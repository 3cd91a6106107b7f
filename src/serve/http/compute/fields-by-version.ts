import { ServiceError } from '../../../base/errors.ts'

type Minors = Readonly<Record<string, number | undefined>>

/**
 * Each version of the API has its own fields, and refuses those of others in the same words as what nobody has heard of.
 * @param versions.since the first version that has a field; `until`: the first that has it no more
 * @throws ServiceError `invalid-request`
 */
export function assertFieldsOf(
  minor: number,
  object: object,
  { since, until }: { readonly since: Minors; readonly until: Minors },
  name = 'server',
): void {
  for (const field of Object.keys(object)) {
    if (minor >= (since[field] ?? 0) && minor < (until[field] ?? Number.POSITIVE_INFINITY)) continue
    throw new ServiceError(
      'invalid-request',
      `Invalid input for field/attribute ${name}. Additional properties are not allowed ('${field}' was unexpected)`,
    )
  }
}
