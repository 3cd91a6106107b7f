import { refuseOvf } from './xml.ts'

/** What VMware and VirtualBox wrote before units were programmatic. */
const oldUnits: Readonly<Record<string, number>> = {
  '': 1,
  byte: 1,
  bytes: 1,
  kilobytes: 2 ** 10,
  kb: 2 ** 10,
  megabytes: 2 ** 20,
  mb: 2 ** 20,
  gigabytes: 2 ** 30,
  gb: 2 ** 30,
  terabytes: 2 ** 40,
}

/**
 * Bytes of one unit: `byte * 2^30`. Source: DSP0004, annex C.1, "Programmatic units", as far as sizes need it.
 * @throws ServiceError `invalid-image`
 */
export function unitBytes(unit: string): number {
  const old = oldUnits[unit.trim().toLowerCase()]
  if (old !== undefined) return old
  const match = /^\s*byte\s*\*\s*(\d{1,4})(?:\s*\^\s*(\d{1,2}))?\s*$/.exec(unit)
  const bytes = match ? Number(match[1]) ** Number(match[2] ?? 1) : Number.NaN
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes
  throw refuseOvf('malformed', `the unit ${JSON.stringify(unit.slice(0, 60))} is no number of bytes below 2^53`)
}

/** @throws ServiceError `invalid-image` for what is no whole number, and for 2^53 bytes or more */
export function bytesFrom(what: string, quantity: string, unit: string): number {
  const count = wholeNumber(what, quantity)
  const bytes = count * unitBytes(unit)
  if (Number.isSafeInteger(bytes)) return bytes
  throw refuseOvf('malformed', `${what} is 2^53 bytes or more: ${quantity.slice(0, 40)} of ${JSON.stringify(unit.slice(0, 60))}`)
}

export function wholeNumber(what: string, text: string): number {
  const value = /^\d{1,40}$/.test(text) ? Number(text) : Number.NaN
  if (Number.isSafeInteger(value)) return value
  throw refuseOvf('malformed', `${what} is ${JSON.stringify(text.slice(0, 60))}, which is no whole number below 2^53`)
}
