import { type Static, Type } from '@sinclair/typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { ServiceError } from '../../../base/errors.ts'
import { imageOfExport } from '../../../images/leases/export-file.ts'
import type { LeasedImage } from '../../../images/leases/lease.ts'
import { readBody } from '../../../store/content/decode-chunks.ts'
import { sha256Hex } from '../../../store/content/digests.ts'
import { sendBytes } from '../send-bytes.ts'
import { type Asked, bodyOf, type Route, route } from './route.ts'
import type { ImprintServices } from './services.ts'

/** Of one request: 64 MiB of 64 KiB chunks. */
const MAX_NUMBERS = 1024
const NUMBER_BYTES = 4

const binary = 'application/octet-stream' as const
const id = Type.String({ minLength: 1, maxLength: 64, pattern: '^[A-Za-z0-9_-]+$' })
const params = Type.Object({ id })
const errors = ['unauthenticated', 'denied', 'not-found', 'unsupported', 'corrupt'] as const

const ExportFile = Type.Object({
  manifest: Type.String({ description: 'SHA-256 of the root of the layout, in lower-case hex' }),
  diskFormat: Type.String({ description: 'what the file is: the disk is in it' }),
  fileBytes: Type.Integer({ minimum: 0 }),
  chunkBytes: Type.Integer({ minimum: 1 }),
})

/** The file behind an export, by its chunks: for hosts that keep what they read. */
export const exportFileRoutes = (services: ImprintServices): readonly Route[] =>
  fileRoutes(services, {
    under: '/exports/:id',
    who: 'members of the project that made the export, administrators',
    of: 'an export',
    imageOf: ({ params, caller }) => imageOfExport(services.leases.catalog, caller, params.id, services.leases.now()),
  })

/** The caller is there only where a token of the identity API is asked for. */
type FileAsked = Pick<Asked<{ readonly id: string }, unknown, unknown>, 'params' | 'request' | 'caller'>

/** What a file is behind, and who may read it. */
export interface LentFile {
  /** Path of what the file is lent by, with its `:id`. */
  readonly under: string
  readonly who: string
  /** In words. */
  readonly of: string
  /** Absent: a token of the identity API is asked for. */
  readonly auth?: 'own'
  /** @throws ServiceError where it may not be read */
  imageOf(asked: FileAsked): Promise<LeasedImage>
}

export const fileRoutes = ({ images }: ImprintServices, { under, who, of, auth, imageOf }: LentFile): readonly Route[] => [
  route({
    method: 'GET',
    path: `${under}/file`,
    summary: `The file behind ${of}`,
    description: 'What a host must know to read it by chunks. It stays the same for as long as that lasts.',
    who,
    ...(auth ? { auth } : {}),
    params,
    reply: { status: 200, body: ExportFile, description: 'its manifest and sizes' },
    errors,
    async handle(asked): Promise<Static<typeof ExportFile>> {
      const { manifest, diskFormat } = await imageOf(asked)
      const { chunks } = images
      const file = await chunks.open(manifest)
      await file.close()
      return { manifest, diskFormat, fileBytes: file.size, chunkBytes: chunks.chunkBytes }
    },
  }),
  route({
    method: 'GET',
    path: `${under}/file/layout`,
    summary: 'The root of its layout',
    description:
      'A manifest’s root as docs/store-format.md has it: it names the pages by their SHA-256, and is vouched for by its own.',
    who,
    ...(auth ? { auth } : {}),
    params,
    reply: { status: 200, gives: binary, description: 'the root; its ETag is its digest' },
    errors,
    async handle(asked) {
      const { manifest } = await imageOf(asked)
      return answerBytes(asked.request, asked.reply, manifest, () => images.chunks.layout(manifest))
    },
  }),
  route({
    method: 'GET',
    path: `${under}/file/layout/:page`,
    summary: 'A page of its layout',
    description:
      'The digests of 1,024 chunks, zeros for a chunk of zeros. A page whose digest in the root is zeros is not there: all its chunks are zeros.',
    who,
    ...(auth ? { auth } : {}),
    params: Type.Object({ id, page: Type.Integer({ minimum: 0, maximum: 2 ** 31 }) }),
    reply: { status: 200, gives: binary, description: 'the page; its ETag is its digest' },
    errors,
    async handle(asked) {
      const { manifest } = await imageOf(asked)
      const page = await images.chunks.layoutPage(manifest, asked.params.page)
      return answerBytes(asked.request, asked.reply, sha256Hex(page), async () => page)
    },
  }),
  route({
    method: 'POST',
    path: `${under}/file/chunks`,
    summary: 'Chunks of it',
    description:
      'Asked for by number, given as frames in the order of asking, those of zeros left out. They come as they are stored and are not verified here: the receiver verifies each by its SHA-256, and where one does not match, asks again with `verified`.',
    who,
    ...(auth ? { auth } : {}),
    params,
    query: Type.Object({
      verified: Type.Optional(
        Type.Boolean({
          description: 'unpacked and verified before they are sent; what is damaged is refused, and noted for its mending',
        }),
      ),
    }),
    takes: binary,
    reply: { status: 200, gives: binary, description: 'frames; an answer that breaks off was not whole' },
    errors: [...errors, 'invalid-request', 'too-large'],
    async handle(asked) {
      const { manifest } = await imageOf(asked)
      const numbers = numbersIn(await readBody(bodyOf(asked.request), MAX_NUMBERS * NUMBER_BYTES))
      await sendBytes(asked.reply, 200, { 'content-type': binary }, (signal) =>
        images.chunks.lendChunks(manifest, numbers, { signal, isVerified: asked.query.verified ?? false }),
      )
    },
  }),
]

/** Bytes that their digest names: who has them is told so. */
async function answerBytes(
  request: FastifyRequest,
  reply: FastifyReply,
  digest: string,
  read: () => Promise<Uint8Array>,
): Promise<Buffer | undefined> {
  const etag = `"${digest}"`
  void reply.header('etag', etag)
  if (request.headers['if-none-match'] === etag) {
    await reply.code(304).send()
    return undefined
  }
  void reply.type(binary)
  const bytes = await read()
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** @throws ServiceError `invalid-request` */
function numbersIn(body: Uint8Array): readonly number[] {
  const view = Buffer.from(body.buffer, body.byteOffset, body.length)
  if (view.length === 0 || view.length % NUMBER_BYTES !== 0) {
    throw new ServiceError('invalid-request', 'the body must be numbers of chunks, 4 bytes each, big-endian, at least one')
  }
  return Array.from({ length: view.length / NUMBER_BYTES }, (_, index) => view.readUInt32BE(index * NUMBER_BYTES))
}
