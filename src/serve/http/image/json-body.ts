import { ServiceError } from '../../../base/errors.ts'

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** A body that must be there and be JSON, whatever its media type says, as Glance reads it. @throws ServiceError `invalid-request` */
export function jsonFrom(bytes: unknown): unknown {
  if (!(bytes instanceof Uint8Array) || bytes.length === 0)
    throw new ServiceError('invalid-request', 'this request needs a body in JSON')
  let value: unknown
  try {
    value = JSON.parse(utf8.decode(bytes))
  } catch (cause) {
    throw new ServiceError('invalid-request', 'the body is not well-formed JSON in UTF-8', {}, { cause })
  }
  if (typeof value !== 'object' || value === null) throw new ServiceError('invalid-request', 'the body is a JSON object or array')
  return value
}

/** @throws ServiceError `invalid-request` */
export function jsonObjectFrom(bytes: unknown): Readonly<Record<string, unknown>> {
  const value = jsonFrom(bytes)
  if (Array.isArray(value)) throw new ServiceError('invalid-request', 'the body must be a JSON object')
  return value as Readonly<Record<string, unknown>>
}
