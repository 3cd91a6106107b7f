import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { KiB, MiB } from '../../../base/units.ts'
import type { UploadView, WantedUpload } from '../../../images/add-by-chunks.ts'
import { isAttribute } from '../../../images/attributes.ts'
import { decodeFrames, decodeLayout, readBody } from '../../../store/content/decode-chunks.ts'
import { imageJson } from './image-json.ts'
import { bodyOf, type Route, route } from './route.ts'
import { BeginUpload, UploadBody, uploadId } from './schemas.ts'
import type { ImprintServices } from './services.ts'

/** 8192 digests: the map of half a GiB. */
const MAX_LACKS_BYTES = 256 * KiB
/** A body of frames is read frame by frame: this bounds time, not memory. */
const MAX_CHUNKS_BYTES = 16 * MiB

const who = 'the project that began the upload'
const binary = 'application/octet-stream' as const
const params = Type.Object({ id: uploadId })

export const uploadRoutes = ({ uploads, images }: ImprintServices): readonly Route[] => [
  route({
    method: 'POST',
    path: '/uploads',
    summary: 'Begin an upload by chunks, or take one up',
    description:
      'With `resume`, takes up an upload that was begun earlier; what is said of the image now replaces what was said then.',
    who: 'who may create images in the project of the token',
    body: BeginUpload,
    reply: { status: 201, body: UploadBody, description: 'the upload' },
    errors: [
      'invalid-request',
      'unauthenticated',
      'denied',
      'not-found',
      'conflict',
      'too-large',
      'over-quota',
      'too-many-requests',
    ],
    async handle({ caller, body }) {
      const wanted = wantedOf(body)
      return viewOf(
        body.resume === undefined ? await uploads.begin(caller, wanted) : await uploads.resume(caller, body.resume, wanted),
      )
    },
  }),
  route({
    method: 'POST',
    path: '/uploads/:id/lacks',
    summary: 'Which of these chunks must be sent?',
    description: 'Answered from what the project itself holds and has sent: nobody learns of the chunks of others.',
    who,
    params,
    takes: binary,
    reply: { status: 200, gives: binary, description: 'a byte for each digest: 1 = send it' },
    errors: ['invalid-request', 'unauthenticated', 'not-found', 'too-large'],
    async handle({ caller, params: { id }, request, reply }) {
      const digests = await readBody(bodyOf(request), MAX_LACKS_BYTES)
      if (digests.length % 32 !== 0) throw new ServiceError('invalid-request', 'the body must be digests of 32 bytes each')
      reply.type(binary)
      return Buffer.from(await uploads.lacks(caller, id, digests))
    },
  }),
  route({
    method: 'PUT',
    path: '/uploads/:id/chunks',
    summary: 'Send chunks',
    description: 'Each is verified by its digest. What came before a fault stays. Sending a chunk again is harmless.',
    who,
    params,
    takes: binary,
    reply: { status: 204, description: 'all taken' },
    errors: ['invalid-request', 'unauthenticated', 'not-found', 'too-large', 'no-space'],
    async handle({ caller, params: { id }, request }) {
      await uploads.put(caller, id, decodeFrames(bodyOf(request), images.chunks.chunkBytes, MAX_CHUNKS_BYTES))
    },
  }),
  route({
    method: 'POST',
    path: '/uploads/:id/commit',
    summary: 'Make the image',
    description:
      'The body is the layout of the file. Answers when bytes and record are durable. Said twice, it answers the same.',
    who,
    params,
    takes: binary,
    reply: {
      status: 200,
      body: Type.Object({ image: Type.Unknown({ description: 'as the image API shows it' }) }),
      description: 'the image',
    },
    errors: ['invalid-request', 'invalid-image', 'unauthenticated', 'denied', 'not-found', 'conflict', 'over-quota', 'no-space'],
    async handle({ caller, params: { id }, request }) {
      const image = await uploads.commit(caller, id, (chunks) => decodeLayout(bodyOf(request), chunks))
      return { image: imageJson(image) }
    },
  }),
  route({
    method: 'DELETE',
    path: '/uploads/:id',
    summary: 'Give an upload up',
    who,
    params,
    reply: { status: 204, description: 'gone' },
    errors: ['unauthenticated', 'not-found', 'conflict'],
    async handle({ caller, params: { id } }) {
      await uploads.abandon(caller, id)
    },
  }),
]

/** The body in the words of the image API, which knows what an image may say of itself. */
function wantedOf({ fileBytes, diskFormat, image, source }: BeginUpload): WantedUpload {
  const { minDiskGb, minRamMb, properties, ...same } = image
  const misplaced = Object.keys(properties ?? {}).find((name) => name === 'id' || isAttribute(name))
  if (misplaced) throw new ServiceError('invalid-request', `"${misplaced}" is no property: it is a member of the image itself`)
  return {
    fileBytes,
    image: {
      ...properties,
      ...same,
      ...(minDiskGb === undefined ? {} : { min_disk: minDiskGb }),
      ...(minRamMb === undefined ? {} : { min_ram: minRamMb }),
      disk_format: diskFormat,
      container_format: 'bare',
    },
    source: source ? notesOf(source) : {},
  }
}

/** In the words in which imports note where an image came from. */
function notesOf({ format, bytes, digest, fileName }: NonNullable<BeginUpload['source']>): WantedUpload['source'] {
  const [algorithm, hex] = digest?.split(':') ?? []
  const named: Record<string, string> = { md5: 'originMd5', sha256: 'originSha256', sha512: 'originSha512' }
  const note = algorithm === undefined ? undefined : named[algorithm]
  return {
    originMethod: 'chunks',
    originFormat: format,
    originSize: bytes,
    ...(note && hex ? { [note]: hex } : {}),
    ...(algorithm === undefined ? {} : { originVerified: algorithm }),
    ...(fileName === undefined ? {} : { originName: fileName }),
  }
}

const viewOf = ({ expiresAt, ...view }: UploadView) => ({ ...view, expiresAt: new Date(expiresAt).toISOString() })
