import { authorizeService } from '../../../volumes/policy.ts'
import { isoMicroseconds } from '../times.ts'
import { type Call, ok, type Route } from './route.ts'
import { ZONE } from './volume-json.ts'

/** The one host, in the places where clients of Cinder look for hosts. */
export const hostRoutes: readonly Route[] = [
  {
    method: 'GET',
    path: '/os-availability-zone',
    handle({ caller }) {
      authorizeService(caller, 'read-zones')
      return ok({ availabilityZoneInfo: [{ zoneName: ZONE, zoneState: { available: true } }] })
    },
  },
  { method: 'GET', path: '/os-services', handle: services },
  {
    method: 'GET',
    path: '/extensions',
    handle: () => ok({ extensions: [] }),
  },
]

function services({ ports, caller, query, minor }: Call) {
  authorizeService(caller, 'read-services')
  const service = {
    binary: 'cinder-volume',
    host: `${ports.settings.hostName}@imprint`,
    zone: ZONE,
    status: 'enabled',
    state: 'up',
    updated_at: isoMicroseconds(ports.now()),
    disabled_reason: null,
    replication_status: 'disabled',
    frozen: false,
    active_backend_id: null,
    ...(minor >= 7 ? { cluster: null } : {}),
    ...(minor >= 49 ? { backend_state: 'up' } : {}),
  }
  const wanted = [
    ['host', service.host],
    ['binary', service.binary],
  ] as const
  return ok({ services: wanted.every(([name, value]) => (query.get(name) ?? value) === value) ? [service] : [] })
}
