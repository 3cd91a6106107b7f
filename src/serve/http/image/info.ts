import type { FastifyInstance } from 'fastify'
import { ServiceError } from '../../../base/errors.ts'
import { findImage } from '../../../images/find-image.ts'
import { STORE_ID } from '../../../images/import/import-image.ts'
import { importMethods } from '../../../images/import/import-request.ts'
import { authorizeService } from '../../../images/policy.ts'
import { usageOfProject } from '../../../images/quotas.ts'
import { callerOf } from '../api.ts'
import type { ImageServices } from './image-services.ts'
import { idOf } from './images.ts'
import { refuseOtherMethods } from './metadefs.ts'

const store = { id: STORE_ID, description: 'chunks, each kept once', default: 'true' }

/** `/info` and `/cache`, below `/image/v2`. */
export function registerInfo(app: FastifyInstance, { ports }: ImageServices): void {
  const exposeHeadRoute = false
  app.get('/info/import', { exposeHeadRoute }, async () => ({
    'import-methods': { description: 'The ways in which an image can be imported.', type: 'array', value: importMethods },
  }))
  refuseOtherMethods(app, '/info/import', ['GET'])

  app.get('/info/stores', { exposeHeadRoute }, async () => ({ stores: [store] }))
  refuseOtherMethods(app, '/info/stores', ['GET'])

  app.get('/info/stores/detail', { exposeHeadRoute }, async (request) => {
    authorizeService(callerOf(request), 'read-store-details')
    return { stores: [{ ...store, type: 'chunks', properties: { chunk_size: ports.chunks.chunkBytes } }] }
  })
  refuseOtherMethods(app, '/info/stores/detail', ['GET'])

  app.get('/info/usage', { exposeHeadRoute }, async (request) => {
    const { projectId } = callerOf(request)
    return { usage: projectId === null ? {} : await usageOfProject(ports, projectId) }
  })
  refuseOtherMethods(app, '/info/usage', ['GET'])

  const noCache = (): never => {
    throw new ServiceError('not-found', 'there is no cache of images to manage here: every read comes from the store, verified')
  }
  for (const method of ['GET', 'DELETE'] as const) {
    app.route({
      method,
      url: '/cache',
      exposeHeadRoute,
      handler: async (request) => {
        authorizeService(callerOf(request), 'manage-cache')
        return noCache()
      },
    })
  }
  refuseOtherMethods(app, '/cache', ['GET', 'DELETE'])
  for (const method of ['PUT', 'DELETE'] as const) {
    app.route({
      method,
      url: '/cache/:id',
      handler: async (request) => {
        await findImage(ports.catalog, callerOf(request), idOf(request.params), 'show')
        authorizeService(callerOf(request), 'manage-cache')
        return noCache()
      },
    })
  }
  refuseOtherMethods(app, '/cache/:id', ['DELETE', 'PUT'])
}
