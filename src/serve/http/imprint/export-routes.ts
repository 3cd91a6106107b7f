import { type Static, Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import {
  createExport,
  type DiskExport,
  EXPORT_SECONDS,
  type ExportWish,
  endExport,
  listExports,
  MAX_SCRATCH_BYTES,
  renewExport,
  showExport,
} from '../../../images/leases/exports.ts'
import { exportUris } from './export-uris.ts'
import { type Route, route } from './route.ts'
import { imageId } from './schemas.ts'
import type { ImprintServices } from './services.ts'

const seconds = Type.Integer({
  minimum: 1,
  maximum: EXPORT_SECONDS.most,
  default: EXPORT_SECONDS.default,
  description: 'from now until it ends by itself; an hour where nothing is said',
})
const NewExport = Type.Object(
  {
    image: Type.Optional(imageId),
    writable: Type.Optional(
      Type.Boolean({ default: false, description: 'what is written is kept beside the image until the export ends' }),
    ),
    size: Type.Optional(
      Type.Integer({
        minimum: 512,
        maximum: MAX_SCRATCH_BYTES,
        multipleOf: 512,
        description: 'of a blank writable disk, in place of an image, in bytes',
      }),
    ),
    seconds: Type.Optional(seconds),
  },
  { additionalProperties: false },
)
const Renewal = Type.Object({ seconds: Type.Optional(seconds) }, { additionalProperties: false })

const exportFields = {
  id: Type.String({ description: 'names the export, and opens nothing' }),
  image: Type.Union([Type.Object({ id: imageId, name: Type.Union([Type.String(), Type.Null()]) }), Type.Null()]),
  diskBytes: Type.Integer({ minimum: 0, description: 'of the disk, not of the file that holds it' }),
  writable: Type.Boolean(),
  projectId: Type.Union([Type.String(), Type.Null()]),
  createdAt: Type.String({ description: 'ISO 8601' }),
  expiresAt: Type.String({ description: 'ISO 8601' }),
}
const Export = Type.Object(exportFields)
const CreatedExport = Type.Object({
  ...exportFields,
  uris: Type.Object(
    {
      unix: Type.String({ description: 'for the user of the service on its own machine' }),
      tcp: Type.Union([Type.String(), Type.Null()], { description: 'null where the service does not listen on TCP for NBD' }),
    },
    { description: 'secret: whoever has one reads the disk. They are told in this answer alone' },
  ),
})

const params = Type.Object({ id: Type.String({ minLength: 1, maxLength: 64, pattern: '^[A-Za-z0-9_-]+$' }) })
const members = 'members of the project that made it, administrators'

export const exportRoutes = ({ leases, nbd }: ImprintServices): readonly Route[] => [
  route({
    method: 'POST',
    path: '/exports',
    summary: 'Serve the disk of an image, or a blank one, over NBD',
    description:
      'For any number of connections, until it is ended or expires; then what was written goes. What becomes of the image meanwhile changes nothing, its deletion included.',
    who: 'who may download the image; members of a project, a blank disk',
    body: NewExport,
    reply: { status: 201, body: CreatedExport, description: 'where it is served' },
    errors: [
      'unauthenticated',
      'denied',
      'not-found',
      'conflict',
      'unsupported',
      'too-large',
      'over-quota',
      'no-space',
      'invalid-request',
    ],
    async handle({ caller, body, request }): Promise<Static<typeof CreatedExport>> {
      const { name, ...made } = await createExport(leases, caller, wishFrom(body))
      return { ...exportBody(made), uris: exportUris(nbd, name, request.hostname) }
    },
  }),
  route({
    method: 'GET',
    path: '/exports',
    summary: 'The exports of the project',
    who: 'its members and readers',
    reply: { status: 200, body: Type.Object({ exports: Type.Array(Export) }), description: 'those that have not ended' },
    errors: ['unauthenticated'],
    handle: async ({ caller }) => ({ exports: (await listExports(leases, caller)).map(exportBody) }),
  }),
  route({
    method: 'GET',
    path: '/exports/:id',
    summary: 'One export',
    who: 'members and readers of the project that made it, administrators',
    params,
    reply: { status: 200, body: Export, description: 'without its addresses: they were told once' },
    errors: ['unauthenticated', 'not-found'],
    handle: async ({ caller, params: { id } }) => exportBody(await showExport(leases, caller, id)),
  }),
  route({
    method: 'POST',
    path: '/exports/:id/renew',
    summary: 'Let an export end later, or sooner',
    who: members,
    params,
    body: Renewal,
    reply: { status: 200, body: Export, description: 'with its new end' },
    errors: ['unauthenticated', 'denied', 'not-found', 'conflict', 'invalid-request'],
    handle: async ({ caller, params: { id }, body }) => exportBody(await renewExport(leases, caller, id, body.seconds)),
  }),
  route({
    method: 'DELETE',
    path: '/exports/:id',
    summary: 'End an export, and cut off who reads it',
    who: members,
    params,
    reply: { status: 204, description: 'ended' },
    errors: ['unauthenticated', 'denied', 'not-found'],
    async handle({ caller, params: { id } }) {
      await endExport(leases, caller, id)
    },
  }),
]

/** @throws ServiceError `invalid-request` */
function wishFrom({ image, size, writable = false, seconds }: Static<typeof NewExport>): ExportWish {
  if (image !== undefined && size === undefined) return { imageId: image, isWritable: writable, seconds }
  if (image === undefined && size !== undefined) return { blankBytes: size, seconds }
  throw new ServiceError('invalid-request', 'body: give the id of an image, or the size of a blank disk')
}

const exportBody = ({
  id,
  image,
  diskBytes,
  isWritable,
  projectId,
  createdAt,
  expiresAt,
}: DiskExport): Static<typeof Export> => ({
  id,
  image,
  diskBytes,
  writable: isWritable,
  projectId,
  createdAt: new Date(createdAt).toISOString(),
  expiresAt: new Date(expiresAt).toISOString(),
})
