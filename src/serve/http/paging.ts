import { ServiceError } from '../../base/errors.ts'

/** Nova's `max_limit`. */
export const MAX_LIMIT = 1000

/** @throws ServiceError `invalid-request` */
export function limitFrom(query: URLSearchParams): number {
  const text = query.getAll('limit').at(-1)
  if (text === undefined) return MAX_LIMIT
  if (!/^\d{1,9}$/.test(text)) {
    throw new ServiceError(
      'invalid-request',
      `Invalid input for query parameters limit. Value: ${text.slice(0, 40)}: it takes a whole number that is not negative`,
    )
  }
  return Math.min(Number(text), MAX_LIMIT)
}

/** The link to what comes after `last`. */
export function nextLink(address: string, query: URLSearchParams, last: string): object {
  const again = new URLSearchParams([...query].filter(([name]) => name !== 'marker'))
  again.set('marker', last)
  return { rel: 'next', href: `${address}?${again}` }
}

/** From version 2.75 on, what means nothing is refused. @throws ServiceError `invalid-request` */
export function refuseUnknown(query: URLSearchParams, minor: number, known: Iterable<string>): void {
  if (minor < 75) return
  const names = new Set(known)
  for (const name of query.keys()) {
    if (names.has(name)) continue
    throw new ServiceError('invalid-request', `Additional properties are not allowed ('${name.slice(0, 80)}' was unexpected)`)
  }
}

/** oslo's `bool_from_string`. */
export const isYes = (text: string): boolean => ['1', 't', 'true', 'on', 'y', 'yes'].includes(text.trim().toLowerCase())
