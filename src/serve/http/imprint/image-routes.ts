import { Type } from '@sinclair/typebox'
import { listAudit } from '../../../images/audit.ts'
import { imageSizes } from '../../../images/image-sizes.ts'
import { listParts } from '../../../images/parts/read-parts.ts'
import { auditOfImage } from '../../../images/read-audit.ts'
import { type Route, route } from './route.ts'
import { AuditEntries, imageId, Parts, projectId, Sizes } from './schemas.ts'
import type { ImprintServices } from './services.ts'
import { administratorsOnly } from './store-routes.ts'

const page = Type.Object({
  after: Type.Optional(Type.String({ maxLength: 64, description: 'where the page before ended' })),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 200 })),
})

export const imageRoutes = ({ images }: ImprintServices): readonly Route[] => [
  route({
    method: 'GET',
    path: '/images/:id/sizes',
    summary: 'The four sizes of an image',
    description: 'Stored and exclusive say something of what else the store holds: they are for the owner and administrators.',
    who: 'the project that owns the image, administrators',
    params: Type.Object({ id: imageId }),
    reply: { status: 200, body: Sizes, description: 'bytes' },
    errors: ['unauthenticated', 'denied', 'not-found', 'conflict'],
    handle: ({ caller, params }) => imageSizes(images, caller, params.id),
  }),
  route({
    method: 'GET',
    path: '/images/:id/parts',
    summary: 'What an image holds beside its disk',
    description:
      'Further disks, memory, and what the machine was, of an image that was made of an instance. An uploaded image has none.',
    who: 'whoever may download the image',
    params: Type.Object({ id: imageId }),
    reply: { status: 200, body: Parts, description: 'ascending by name' },
    errors: ['unauthenticated', 'denied', 'not-found'],
    handle: async ({ caller, params }) => ({ parts: await listParts(images, caller, params.id) }),
  }),
  route({
    method: 'GET',
    path: '/images/:id/audit',
    summary: 'Who did what to an image, newest first',
    who: 'the project that owns the image (also after it was deleted), administrators',
    params: Type.Object({ id: imageId }),
    query: page,
    reply: { status: 200, body: AuditEntries, description: 'a page' },
    errors: ['unauthenticated', 'not-found'],
    async handle({ caller, params, query }) {
      return entriesOf(await auditOfImage(images, caller, params.id, pageOf(query)), query.limit)
    },
  }),
  route({
    method: 'GET',
    path: '/projects/:id/audit',
    summary: 'Who did what to the images of a project, newest first',
    who: 'administrators',
    params: Type.Object({ id: projectId }),
    query: page,
    reply: { status: 200, body: AuditEntries, description: 'a page' },
    errors: ['unauthenticated', 'denied'],
    async handle({ caller, params, query }) {
      administratorsOnly(caller)
      return entriesOf(await listAudit(images.catalog, { projectId: params.id }, pageOf(query)), query.limit)
    },
  }),
]

const pageOf = ({ after, limit = 200 }: { after?: string; limit?: number }) => ({ limit, ...(after ? { after } : {}) })

type Found = Awaited<ReturnType<typeof listAudit>>

function entriesOf(found: Found, limit = 200): object {
  const entries = found.map(({ record }) => ({
    at: new Date(record.at).toISOString(),
    action: record.action,
    outcome: record.outcome,
    imageId: record.imageId,
    userId: record.userId,
    userName: record.userName,
    projectId: record.actingProjectId,
    requestId: record.requestId,
    details: record.details ?? {},
  }))
  const last = found.at(-1)
  return { entries, ...(last && found.length === limit ? { next: last.key } : {}) }
}
