import { ServiceError } from '../../../base/errors.ts'

/** Parameters of the lists of metadata definitions. A parameter given twice counts as it stands last. */
export type Query = Readonly<Record<string, string | readonly string[] | undefined>>

export function lastOf(query: Query, name: string): string | undefined {
  const value = query[name]
  return typeof value === 'string' ? value : value?.at(-1)
}

/** @throws ServiceError `invalid-request` */
export function limitFrom(query: Query, least: number): number | undefined {
  const text = lastOf(query, 'limit')
  if (text === undefined || text === '') return undefined
  if (!/^[+-]?\d{1,15}$/.test(text)) throw new ServiceError('invalid-request', 'limit must be a whole number')
  const limit = Number(text)
  if (limit < least) throw new ServiceError('invalid-request', `limit must be ${least} or more`)
  return limit
}

/** @throws ServiceError `invalid-request` */
export function orderFrom<Key extends string>(query: Query, keys: readonly Key[]): { sortKey: Key; direction: 'asc' | 'desc' } {
  const [wanted, direction] = [lastOf(query, 'sort_key') ?? 'created_at', lastOf(query, 'sort_dir') ?? 'desc']
  const sortKey = keys.find((key) => key === wanted)
  if (!sortKey) throw new ServiceError('invalid-request', `sort_key must be one of ${keys.join(', ')}`)
  if (direction !== 'asc' && direction !== 'desc') throw new ServiceError('invalid-request', 'sort_dir must be asc or desc')
  return { sortKey, direction }
}

/** @throws ServiceError `invalid-request` */
export function visibilityFrom<Name extends string>(query: Query, names: readonly Name[]): Name | undefined {
  const wanted = lastOf(query, 'visibility')
  if (!wanted) return undefined
  const found = names.find((name) => name === wanted)
  if (!found) throw new ServiceError('invalid-request', `visibility must be one of ${names.join(', ')}`)
  return found
}

/** The query again, as text, without the marker and with `next` in its place. */
export function queryAgain(query: Query, next?: string): string {
  const kept = new URLSearchParams()
  for (const name of Object.keys(query)) if (name !== 'marker') kept.set(name, lastOf(query, name) ?? '')
  if (next !== undefined) kept.set('marker', next)
  const text = kept.toString()
  return text === '' ? '' : `?${text}`
}
