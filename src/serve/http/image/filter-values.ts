import { ServiceError } from '../../../base/errors.ts'

/** The forms in which the values of filters come. */

const isoTime =
  /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2})(?::?(\d{2})(?::?(\d{2})(?:[.,](\d{1,9}))?)?)?(?:(Z)|([+-])(\d{2}):?(\d{2})?)?)?$/i

/** Milliseconds since 1970 of an ISO 8601 time; without a zone it is UTC. Undefined where it is none. */
export function parseIsoTime(text: string): number | undefined {
  const match = isoTime.exec(text.trim())
  if (!match) return undefined
  const [, year, month, day, hour = 0, minute = 0, second = 0, , , sign, zoneHours = 0, zoneMinutes = 0] = match
  const local = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second))
  const date = new Date(local)
  const isReal =
    date.getUTCMonth() === Number(month) - 1 &&
    date.getUTCDate() === Number(day) &&
    Number(hour) < 24 &&
    Number(minute) < 60 &&
    Number(second) < 60
  if (!isReal) return undefined
  const zoneMs = (Number(zoneHours) * 60 + Number(zoneMinutes)) * 60_000
  return sign === '-' ? local + zoneMs : local - zoneMs
}

/** `in:a,b` → in, `a,b`; what has no operator is compared as it is. A time keeps its colons. */
export function splitOperator(text: string): { readonly operator: string; readonly operand: string } {
  const colon = text.indexOf(':')
  if (colon < 0 || parseIsoTime(text) !== undefined) return { operator: 'eq', operand: text }
  return { operator: text.slice(0, colon), operand: text.slice(colon + 1) }
}

/**
 * `a,b,"c,d"` → a, b, `c,d`. A backslash keeps the quotation mark after it from ending a quoted value.
 * @throws ServiceError `invalid-request`
 */
export function splitValues(text: string): string[] {
  const values: string[] = []
  let at = 0
  while (at < text.length) {
    const [value, next] = text[at] === '"' ? quoted(text, at + 1) : plain(text, at)
    values.push(value)
    at = next
  }
  return values
}

function quoted(text: string, start: number): [value: string, next: number] {
  let end = start
  while (end < text.length && text[end] !== '"') end += text[end] === '\\' ? 2 : 1
  if (end >= text.length) throw new ServiceError('invalid-request', 'a quotation mark in a list of values is not closed')
  if (end + 1 < text.length && text[end + 1] !== ',') {
    throw new ServiceError('invalid-request', 'a comma must follow the closing quotation mark in a list of values')
  }
  return [text.slice(start, end), end + 2]
}

function plain(text: string, start: number): [value: string, next: number] {
  const comma = text.indexOf(',', start)
  const end = comma < 0 ? text.length : comma
  const value = text.slice(start, end)
  if (value.includes('"'))
    throw new ServiceError('invalid-request', 'a comma must stand before the opening quotation mark in a list of values')
  return [value, end + 1]
}
