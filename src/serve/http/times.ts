import { ServiceError } from '../../base/errors.ts'

/** Nova shows whole seconds. */
export const isoSeconds = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`
/** As it shows what databases keep: no zone. */
export const isoMicroseconds = (ms: number): string => `${new Date(ms).toISOString().slice(0, 23)}000`

/** ISO 8601, with or without a zone; without one it is UTC. @throws ServiceError `invalid-request` */
export function msFrom(text: string, name: string): number {
  const isTime = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?$/.test(text)
  const hasZone = /(Z|[+-]\d{2}:?\d{2})$/.test(text.slice(10))
  const ms = isTime ? Date.parse(hasZone ? text : `${text}${text.length > 10 ? 'Z' : ''}`) : Number.NaN
  if (Number.isFinite(ms)) return ms
  throw new ServiceError(
    'invalid-request',
    `Invalid input for query parameters ${name}. Value: ${text.slice(0, 80)}: it takes a time in ISO 8601`,
  )
}
