import { type Static, Type } from '@sinclair/typebox'

/** The bodies of `/v1`. Every text and list has its limit here, before anything is done with it. */

export const ErrorBody = Type.Object(
  {
    code: Type.String({ description: 'one of docs/errors.md' }),
    message: Type.String({ description: 'a sentence that says what is wrong, where, and what to do next' }),
    details: Type.Record(Type.String(), Type.Union([Type.String(), Type.Number(), Type.Boolean(), Type.Null()])),
  },
  { title: 'Error' },
)

export const bytes = (description: string) => Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description })
const MAX_NAME = 255
/** As Glance: enough for every tool that we know, and a record stays small. */
const MAX_PROPERTIES = 128
const MAX_TAGS = 128

export const imageId = Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$', description: 'lower-case UUID' })
export const uploadId = Type.String({ minLength: 1, maxLength: 64, pattern: '^[A-Za-z0-9_-]+$' })
export const projectId = Type.String({ minLength: 1, maxLength: 64, pattern: '^[A-Za-z0-9_-]+$' })

export const ImageFields = Type.Object(
  {
    id: Type.Optional(imageId),
    name: Type.Optional(Type.Union([Type.String({ maxLength: MAX_NAME }), Type.Null()])),
    visibility: Type.Optional(
      Type.Union([Type.Literal('private'), Type.Literal('shared'), Type.Literal('community'), Type.Literal('public')]),
    ),
    protected: Type.Optional(Type.Boolean()),
    minDiskGb: Type.Optional(Type.Integer({ minimum: 0, maximum: 2 ** 31 - 1 })),
    minRamMb: Type.Optional(Type.Integer({ minimum: 0, maximum: 2 ** 31 - 1 })),
    tags: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: MAX_NAME }), { maxItems: MAX_TAGS })),
    properties: Type.Optional(
      Type.Record(Type.String({ maxLength: MAX_NAME }), Type.String({ maxLength: 65_535 }), { maxProperties: MAX_PROPERTIES }),
    ),
  },
  { additionalProperties: false, description: 'what the image will say of itself' },
)

export const Source = Type.Object(
  {
    format: Type.String({ maxLength: 32, description: 'disk format of the file that the client read' }),
    bytes: bytes('size of that file'),
    digest: Type.Optional(
      Type.String({
        pattern: '^(md5|sha1|sha256|sha512):[0-9a-f]{32,128}$',
        description: 'of that file, as the client verified it',
      }),
    ),
    fileName: Type.Optional(Type.String({ maxLength: MAX_NAME })),
  },
  { additionalProperties: false, description: 'where the disk came from' },
)

export const BeginUpload = Type.Object(
  {
    resume: Type.Optional(uploadId),
    fileBytes: bytes('size of the file that the image will be'),
    diskFormat: Type.String({ maxLength: 32, description: 'format of that file: raw where the disk of a qcow2 is sent' }),
    image: ImageFields,
    source: Type.Optional(Source),
  },
  { additionalProperties: false },
)
export type BeginUpload = Static<typeof BeginUpload>

export const UploadBody = Type.Object({
  id: uploadId,
  imageId,
  chunkBytes: bytes('size of a chunk; the last one of a file may be shorter'),
  fileBytes: bytes('as it was announced'),
  expiresAt: Type.String({ description: 'when the service lets go of it, unless it is taken up again' }),
})
export type UploadBody = Static<typeof UploadBody>

export const Sizes = Type.Object({
  virtualBytes: Type.Union([bytes('the disk that a machine sees'), Type.Null()]),
  fileBytes: bytes('the file that was put in'),
  partBytes: bytes('what belongs to the image beside the file; the three below are of both together'),
  allocatedBytes: bytes('what is not zeros'),
  storedBytes: bytes('chunks in the store, compressed, each counted once for the file and once for each part that has it'),
  exclusiveBytes: bytes('of these, what no other image uses (for others than administrators: no other image of the project)'),
})

export const Parts = Type.Object({
  parts: Type.Array(
    Type.Object({
      name: Type.String(),
      kind: Type.Union([Type.Literal('disk'), Type.Literal('memory'), Type.Literal('machine')]),
      bytes: bytes('of the disk, the memory as it was saved, or the JSON that tells of the machine'),
    }),
  ),
})

const quotaName = Type.Union([Type.Literal('images'), Type.Literal('bytes'), Type.Literal('uploads'), Type.Literal('staged')])
export const Quotas = Type.Object({
  quotas: Type.Array(
    Type.Object({
      name: quotaName,
      limit: Type.Integer({ description: '-1: no limit' }),
      usage: Type.Integer({ minimum: 0 }),
    }),
  ),
})
const limit = Type.Integer({ minimum: -1, maximum: Number.MAX_SAFE_INTEGER })
export const SetQuotas = Type.Object(
  {
    limits: Type.Object(
      { images: Type.Optional(limit), bytes: Type.Optional(limit), uploads: Type.Optional(limit), staged: Type.Optional(limit) },
      { additionalProperties: false, minProperties: 1 },
    ),
  },
  { additionalProperties: false },
)

export const AuditEntries = Type.Object({
  entries: Type.Array(
    Type.Object({
      at: Type.String({ description: 'ISO 8601' }),
      action: Type.String(),
      outcome: Type.String(),
      imageId: Type.Union([Type.String(), Type.Null()]),
      userId: Type.Union([Type.String(), Type.Null()]),
      userName: Type.Union([Type.String(), Type.Null()]),
      projectId: Type.Union([Type.String(), Type.Null()]),
      requestId: Type.Union([Type.String(), Type.Null()]),
      details: Type.Unknown(),
    }),
  ),
  next: Type.Optional(Type.String({ description: 'give it as ?after= for what is older' })),
})

export const StoreStatsBody = Type.Object({
  chunkBytes: bytes('size of a chunk'),
  chunks: bytes('chunks in the store'),
  packs: bytes('packs'),
  manifests: bytes('manifests'),
  storedBytes: bytes('all chunks, compressed'),
  chunkDataBytes: bytes('what they stand for'),
  counters: Type.Record(Type.String(), Type.Number()),
})

export const JobLine = Type.Union(
  [
    Type.Object({ progress: Type.Object({ phase: Type.String(), done: Type.Number(), total: Type.Number() }) }),
    Type.Object({ fault: Type.Unknown() }),
    Type.Object({ result: Type.Unknown() }),
    Type.Object({ error: ErrorBody }),
  ],
  { description: 'one a line; the last is a result or an error' },
)
export const CheckOptions = Type.Object({ readData: Type.Optional(Type.Boolean()) }, { additionalProperties: false })
export const BackupOptions = Type.Object(
  { folder: Type.String({ minLength: 1, maxLength: 4096, description: 'whole path; new, empty, or an earlier backup' }) },
  { additionalProperties: false },
)
export const NoOptions = Type.Object({}, { additionalProperties: false })

export const Status = Type.Object({
  version: Type.String(),
  uptimeSeconds: Type.Number(),
  job: Type.Union([Type.String(), Type.Null()]),
  store: Type.Optional(StoreStatsBody),
})
