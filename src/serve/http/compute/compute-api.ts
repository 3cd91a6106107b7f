import type { Api } from '../api.ts'
import { versionedApi } from '../versioned-api.ts'
import { actionLogRoutes } from './action-log-routes.ts'
import { consoleRoutes } from './console-routes.ts'
import { flavorRoutes } from './flavor-routes.ts'
import { hostRoutes } from './host-routes.ts'
import { keypairRoutes } from './keypair-routes.ts'
import { limitRoutes } from './limit-routes.ts'
import { computeMicroversions } from './microversion.ts'
import { type Call, type ComputeServices, PREFIX, type Route } from './route.ts'
import { serialSocket } from './serial-socket.ts'
import { serverActionRoutes } from './server-actions.ts'
import { metadataRoutes } from './server-metadata.ts'
import { serverPartRoutes } from './server-parts.ts'
import { serverRoutes } from './server-routes.ts'
import { computeVersionDetail, computeVersions } from './versions.ts'
import { volumeAttachmentRoutes } from './volume-attachments.ts'

export { computeVersions }

/** Nova's API, version 2.1 and its microversions: a subset, listed in docs/compute.md. */
export function computeApi({ ports, baseUrlOf }: ComputeServices): Api {
  const api = versionedApi<Call>({
    name: 'compute',
    prefix: PREFIX,
    // a quota is refused as Nova does; what is not served at all is not a matter of media types here
    statuses: { 'over-quota': 403, 'too-large': 400, unsupported: 501 },
    versions: computeMicroversions,
    routes: computeRoutes,
    folders: ['/v2.1'],
    requestIdHeader: 'x-compute-request-id',
    discovery: {
      '/': (request) => ({ status: 200, body: computeVersions(baseUrlOf(request)) }),
      '/versions': (request) => ({ status: 200, body: computeVersions(baseUrlOf(request)) }),
      '/v2.1': (request) => ({ status: 200, body: computeVersionDetail(baseUrlOf(request)) }),
      '/v2.1/': (request) => ({ status: 200, body: computeVersionDetail(baseUrlOf(request)) }),
    },
    baseUrlOf,
    callOf(call, request) {
      const bookmarks = baseUrlOf(request) + PREFIX
      return { ...call, ports, base: `${bookmarks}/v2.1`, bookmarks }
    },
  })
  return { ...api, upgrade: serialSocket(ports) }
}

export const computeRoutes: readonly Route[] = [
  ...serverRoutes,
  ...serverActionRoutes,
  ...consoleRoutes,
  ...actionLogRoutes,
  ...metadataRoutes,
  ...serverPartRoutes,
  ...volumeAttachmentRoutes,
  ...flavorRoutes,
  ...keypairRoutes,
  ...limitRoutes,
  ...hostRoutes,
]
