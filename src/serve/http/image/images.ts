import type { FastifyInstance } from 'fastify'
import { newImageFrom } from '../../../images/attributes.ts'
import { createImage } from '../../../images/create-image.ts'
import { deleteImage } from '../../../images/delete-image.ts'
import { showImage } from '../../../images/find-image.ts'
import { STORE_ID } from '../../../images/import/import-image.ts'
import { importMethods } from '../../../images/import/import-request.ts'
import { listImages } from '../../../images/list-images.ts'
import { patchImage } from '../../../images/patch-image.ts'
import { callerOf } from '../api.ts'
import type { ImageJson } from './image-json.ts'
import { type ImageServices, PREFIX } from './image-services.ts'
import { jsonObjectFrom } from './json-body.ts'
import { listRequestFrom, queryAgain, withMarker } from './list-query.ts'
import { refuseOtherMethods } from './metadefs.ts'
import { changesFrom, isPatch, patchMediaTypes } from './patch-body.ts'

/** `/images` and `/images/{id}`, below `/image/v2`. */
export function registerImages(app: FastifyInstance, { ports, baseUrlOf }: ImageServices, json: ImageJson): void {
  const exposeHeadRoute = false

  app.get('/images', { exposeHeadRoute }, async (request, reply) => {
    const caller = callerOf(request)
    const query = queryOf(request.url)
    const { images, next } = await listImages(ports, caller, listRequestFrom(query))
    const again = queryAgain(query)
    const links = `"first": ${JSON.stringify(`/v2/images${again}`)}, "schema": "/v2/schemas/images"`
    const more = next === undefined ? '' : `, "next": ${JSON.stringify(`/v2/images${withMarker(again, next)}`)}`
    const body = `{"images": [${json.listOf(images, caller)}], ${links}${more}}`
    return reply.header('content-type', 'application/json').send(Buffer.from(body, 'latin1')) // it is all ASCII
  })

  app.post('/images', { exposeHeadRoute }, async (request, reply) => {
    const caller = callerOf(request)
    const image = await createImage(ports, caller, newImageFrom(jsonObjectFrom(request.body)))
    return reply
      .code(201)
      .headers({
        'content-type': 'application/json',
        location: `${baseUrlOf(request)}${PREFIX}/v2/images/${image.id}`,
        'openstack-image-import-methods': importMethods.join(','),
        'openstack-image-store-ids': STORE_ID,
      })
      .send(json.of(image, caller))
  })
  refuseOtherMethods(app, '/images', ['GET', 'POST'])

  app.get('/images/:id', { exposeHeadRoute }, async (request, reply) => {
    const caller = callerOf(request)
    const image = await showImage(ports, caller, idOf(request.params))
    return reply.header('content-type', 'application/json').send(json.of(image, caller))
  })

  app.patch('/images/:id', async (request, reply) => {
    const caller = callerOf(request)
    const contentType = request.headers['content-type']
    if (!isPatch(contentType)) reply.header('accept-patch', patchMediaTypes.join(', '))
    const changes = changesFrom(contentType, request.body)
    const image = await patchImage(ports, caller, idOf(request.params), changes)
    return reply.header('content-type', 'application/json').send(json.of(image, caller))
  })

  app.delete('/images/:id', async (request, reply) => {
    await deleteImage(ports, callerOf(request), idOf(request.params))
    return reply.code(204).send()
  })
  refuseOtherMethods(app, '/images/:id', ['GET', 'PATCH', 'DELETE'])
}

export const idOf = (params: unknown): string => (params as { readonly id: string }).id

const noQuery = new URLSearchParams()
/** The parameters in their order, repeated ones included. */
export function queryOf(url: string): URLSearchParams {
  const mark = url.indexOf('?')
  return mark < 0 ? noQuery : new URLSearchParams(url.slice(mark + 1))
}
