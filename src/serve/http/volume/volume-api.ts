import { ServiceError } from '../../../base/errors.ts'
import type { Api } from '../api.ts'
import { versionedApi } from '../versioned-api.ts'
import { attachmentRoutes } from './attachment-routes.ts'
import { hostRoutes } from './host-routes.ts'
import { limitRoutes } from './limit-routes.ts'
import { metadataRoutes } from './metadata-routes.ts'
import { volumeMicroversions } from './microversion.ts'
import { type Call, PREFIX, type Route, type VolumeServices } from './route.ts'
import { snapshotRoutes } from './snapshot-routes.ts'
import { typeRoutes } from './type-routes.ts'
import { volumeVersions } from './versions.ts'
import { volumeActionRoutes } from './volume-actions.ts'
import { volumeRoutes } from './volume-routes.ts'

/** Cinder's API, version 3 and its microversions: a subset, listed in docs/volumes.md. */
export function volumeApi({ ports, baseUrlOf }: VolumeServices): Api {
  const versions = (request: Parameters<typeof baseUrlOf>[0]) => volumeVersions(baseUrlOf(request))
  return versionedApi<Call>({
    name: 'volume',
    prefix: PREFIX,
    // as Cinder: what its state forbids makes a request wrong, and what is not served at all is not a matter of media types
    statuses: { conflict: 400, 'too-large': 400, unsupported: 501, 'no-space': 503 },
    versions: volumeMicroversions,
    routes: volumeApiRoutes,
    folders: ['/v3', '/v3/:project'], // until 3.67 each path named the project; clients still do
    requestIdHeader: 'x-compute-request-id',
    discovery: {
      '/': (request) => ({ status: 300, body: versions(request) }),
      '/versions': (request) => ({ status: 300, body: versions(request) }),
      '/v3': (request) => ({ status: 200, body: versions(request) }),
      '/v3/': (request) => ({ status: 200, body: versions(request) }),
    },
    baseUrlOf,
    callOf(call, request) {
      const { project } = call.params
      if (project !== undefined && project !== call.caller.projectId) {
        throw new ServiceError('invalid-request', 'Malformed request url: the project in the path is not the one of the token')
      }
      const bookmarks = baseUrlOf(request) + PREFIX
      const inProject = project === undefined ? '' : `/${project}`
      return { ...call, ports, base: `${bookmarks}/v3${inProject}`, bookmarks: bookmarks + inProject }
    },
  })
}

export const volumeApiRoutes: readonly Route[] = [
  ...volumeRoutes,
  ...volumeActionRoutes,
  ...metadataRoutes,
  ...snapshotRoutes,
  ...attachmentRoutes,
  ...typeRoutes,
  ...limitRoutes,
  ...hostRoutes,
]
