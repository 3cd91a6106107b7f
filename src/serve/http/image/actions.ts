import type { FastifyInstance } from 'fastify'
import { ServiceError } from '../../../base/errors.ts'
import { deactivate, reactivate } from '../../../images/activation.ts'
import { deleteFromStore } from '../../../images/delete-from-store.ts'
import { importImage } from '../../../images/import/import-image.ts'
import { importRequestFrom } from '../../../images/import/import-request.ts'
import { addTag, deleteTag } from '../../../images/tags.ts'
import { callerOf } from '../api.ts'
import type { ImageServices } from './image-services.ts'
import { idOf } from './images.ts'
import { jsonObjectFrom } from './json-body.ts'
import { refuseOtherMethods } from './metadefs.ts'

/** What is done to one image by a path of its own: tags, activation, import, stores. */
export function registerActions(app: FastifyInstance, { ports }: ImageServices): void {
  const tag = '/images/:id/tags/:tag'
  app.put<{ Params: { id: string; tag: string } }>(tag, async (request, reply) => {
    if (request.params.tag === '') throw new ServiceError('not-found', 'there is nothing at this path; a tag comes after /tags/')
    // the router takes `…/tags/` for a tag of no letters
    if (request.params.tag === '') throw new ServiceError('not-found', 'there is nothing at this path: name the tag')
    await addTag(ports, callerOf(request), request.params.id, request.params.tag)
    return reply.code(204).send()
  })
  app.delete<{ Params: { id: string; tag: string } }>(tag, async (request, reply) => {
    await deleteTag(ports, callerOf(request), request.params.id, request.params.tag)
    return reply.code(204).send()
  })
  refuseOtherMethods(app, tag, ['PUT', 'DELETE'])

  for (const [name, act] of Object.entries({ deactivate, reactivate })) {
    const action = `/images/:id/actions/${name}`
    app.post(action, async (request, reply) => {
      await act(ports, callerOf(request), idOf(request.params))
      return reply.code(204).send()
    })
    refuseOtherMethods(app, action, ['POST'])
  }

  const imports = '/images/:id/import'
  app.post(imports, async (request, reply) => {
    await importImage(ports, callerOf(request), idOf(request.params), importRequestFrom(jsonObjectFrom(request.body)))
    return reply.code(202).send()
  })
  refuseOtherMethods(app, imports, ['POST'])

  const stores = '/stores/:store/:id'
  app.delete<{ Params: { store: string; id: string } }>(stores, async (request) =>
    deleteFromStore(ports, callerOf(request), request.params.store, request.params.id),
  )
  refuseOtherMethods(app, stores, ['DELETE'])
}
