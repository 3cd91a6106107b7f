import type { IncomingHttpHeaders } from 'node:http'
import { ServiceError } from '../../../base/errors.ts'

/**
 * The level of Nova's API that a request speaks: 2.1 where it says nothing, as old clients do. Source: Nova, "REST API Version
 * History". What is not served here at all (volumes, migrations …) is not served at any level.
 */
export const MIN_MINOR = 1
/** Beyond it: 2.80 and later, of which most concern migrations, accelerators and volumes. */
export const MAX_MINOR = 79

const SERVICE = 'compute'

/**
 * @returns the minor number: 79 for 2.79
 * @throws ServiceError `invalid-request` for what is no version; `NotAcceptable` for one that is not spoken
 */
export function minorFrom(headers: IncomingHttpHeaders): number {
  const wanted = wantedVersion(headers)
  if (wanted === undefined) return MIN_MINOR
  if (wanted === 'latest') return MAX_MINOR
  const found = /^(\d{1,4})\.(\d{1,4})$/.exec(wanted)
  if (!found || /^0\d|\.0\d/.test(wanted)) {
    const message = `API Version String ${wanted.slice(0, 40)} is of invalid format. Must be of format MajorNum.MinorNum.`
    throw new ServiceError('invalid-request', message)
  }
  const minor = Number(found[2])
  if (found[1] === '2' && minor >= MIN_MINOR && minor <= MAX_MINOR) return minor
  throw new NotAcceptable(wanted)
}

/** OpenStack-API-Version: `compute 2.79`, among those of other services. The older header names no service. */
function wantedVersion(headers: IncomingHttpHeaders): string | undefined {
  const newer = headers['openstack-api-version']
  for (const part of (Array.isArray(newer) ? newer.join(',') : (newer ?? '')).split(',')) {
    const [service, version] = part.trim().split(/\s+/)
    if (service?.toLowerCase() === SERVICE && version) return version.toLowerCase()
  }
  const older = headers['x-openstack-nova-api-version']
  return (Array.isArray(older) ? older[0] : older)?.trim().toLowerCase() || undefined
}

/** Answered with 406, the one status that no error of the service has. */
export class NotAcceptable extends Error {
  constructor(version: string) {
    super(`Version ${version} is not supported by the API. Minimum is 2.${MIN_MINOR} and maximum is 2.${MAX_MINOR}.`)
  }
}

export const versionHeaders = (minor: number): Readonly<Record<string, string>> => ({
  'openstack-api-version': `${SERVICE} 2.${minor}`,
  'x-openstack-nova-api-version': `2.${minor}`,
  vary: 'OpenStack-API-Version, X-OpenStack-Nova-API-Version',
})
