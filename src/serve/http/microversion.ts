import type { IncomingHttpHeaders } from 'node:http'
import { ServiceError } from '../../base/errors.ts'

/** The levels of one of OpenStack's APIs, as requests choose them by a header; all minor numbers of one major. */
export interface Microversions {
  /** The service's type, as headers name it. */
  readonly service: 'compute' | 'volume'
  readonly major: number
  /** Spoken where a request says nothing, as old clients do. */
  readonly least: number
  readonly most: number
  /** An older header, which names no service. */
  readonly olderHeader?: string
}

/**
 * @returns the minor number: 79 for 2.79
 * @throws ServiceError `invalid-request` for what is no version; `NotAcceptable` for one that is not spoken
 */
export function minorFrom(versions: Microversions, headers: IncomingHttpHeaders): number {
  const wanted = wantedVersion(versions, headers)
  if (wanted === undefined) return versions.least
  if (wanted === 'latest') return versions.most
  const found = /^(\d{1,4})\.(\d{1,4})$/.exec(wanted)
  if (!found || /^0\d|\.0\d/.test(wanted)) {
    const message = `API Version String ${wanted.slice(0, 40)} is of invalid format. Must be of format MajorNum.MinorNum.`
    throw new ServiceError('invalid-request', message)
  }
  const minor = Number(found[2])
  if (Number(found[1]) === versions.major && minor >= versions.least && minor <= versions.most) return minor
  throw new NotAcceptable(versions, wanted)
}

/** OpenStack-API-Version: `compute 2.79`, among those of other services. */
function wantedVersion({ service: mine, olderHeader }: Microversions, headers: IncomingHttpHeaders): string | undefined {
  const newer = headers['openstack-api-version']
  for (const part of (Array.isArray(newer) ? newer.join(',') : (newer ?? '')).split(',')) {
    const [service, version] = part.trim().split(/\s+/)
    if (service?.toLowerCase() === mine && version) return version.toLowerCase()
  }
  const older = olderHeader === undefined ? undefined : headers[olderHeader]
  return (Array.isArray(older) ? older[0] : older)?.trim().toLowerCase() || undefined
}

/** Answered with 406, the one status that no error of the service has. */
export class NotAcceptable extends Error {
  constructor({ major, least, most }: Microversions, version: string) {
    super(`Version ${version} is not supported by the API. Minimum is ${major}.${least} and maximum is ${major}.${most}.`)
  }
}

export const versionHeaders = (
  { service, major, olderHeader }: Microversions,
  minor: number,
): Readonly<Record<string, string>> => ({
  'openstack-api-version': `${service} ${major}.${minor}`,
  ...(olderHeader === undefined ? {} : { [olderHeader]: `${major}.${minor}` }),
  vary: ['OpenStack-API-Version', ...(olderHeader === undefined ? [] : [olderHeader])].join(', '),
})
