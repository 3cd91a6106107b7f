import type { FastifyInstance } from 'fastify'
import type { Api } from '../api.ts'
import { registerActions } from './actions.ts'
import { registerData } from './data.ts'
import { renderGlanceError } from './error-body.ts'
import { ImageJson } from './image-json.ts'
import { type ImageServices, PREFIX } from './image-services.ts'
import { registerImages } from './images.ts'
import { registerInfo } from './info.ts'
import { registerMembers } from './members.ts'
import { registerMetadefs } from './metadefs.ts'
import { registerSchemas } from './schemas.ts'
import { registerTasks } from './tasks.ts'
import { imageVersions } from './versions.ts'

export { imageVersions }

/** Glance v2, at `/image`. */
export function imageApi(services: ImageServices): Api {
  const { ports, baseUrlOf } = services
  const json = new ImageJson(ports.protections)
  return {
    name: 'image',
    prefix: PREFIX,
    register(app) {
      const open = { config: { auth: 'none' as const } }
      app.get('/', open, async (request, reply) => reply.code(300).send(imageVersions(baseUrlOf(request))))
      app.get('/versions', open, async (request) => imageVersions(baseUrlOf(request)))
      app.register(
        async (v2) => {
          registerSchemas(v2)
          registerMetadefs(v2, { catalog: ports.catalog, now: ports.now })
          v2.register(async (scope) => registerData(scope, services))
          v2.register(async (scope) => {
            readBodiesWhole(scope)
            registerImages(scope, services, json)
            registerMembers(scope, services)
            registerActions(scope, services)
            registerTasks(scope, services)
            registerInfo(scope, services)
          })
        },
        { prefix: '/v2' },
      )
    },
    renderError(error, status, request) {
      const rendered = renderGlanceError(error, status, request.headers.accept)
      if (status !== 401) return rendered
      return { ...rendered, headers: { 'www-authenticate': `Keystone uri="${baseUrlOf(request)}/identity"` } }
    },
  }
}

/** As bytes, whatever their media type says: each handler knows what it takes. */
function readBodiesWhole(scope: FastifyInstance): void {
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser('*', { parseAs: 'buffer' }, (_, body, done) => done(null, body))
}
