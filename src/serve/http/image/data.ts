import { Socket } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isServiceError, ServiceError } from '../../../base/errors.ts'
import { KiB } from '../../../base/units.ts'
import { type Download, download, type Making } from '../../../images/download.ts'
import { STORE_ID } from '../../../images/import/import-image.ts'
import { stage } from '../../../images/stage.ts'
import type { Incoming } from '../../../images/transfer.ts'
import { upload } from '../../../images/upload.ts'
import { callerOf } from '../api.ts'
import { piecesOf } from '../request-body.ts'
import { sendBytes } from '../send-bytes.ts'
import { type ByteRange, rangeFrom } from './byte-range.ts'
import type { ImageServices } from './image-services.ts'
import { idOf } from './images.ts'
import { refuseOtherMethods } from './metadefs.ts'
import { waitAsked } from './prefer.ts'
import { wantedFormat } from './wanted-format.ts'

const BYTES = 'application/octet-stream'

/** `/images/{id}/file` and `/images/{id}/stage`, below `/image/v2`. Bodies are streams here, and nothing reads them in between. */
export function registerData(app: FastifyInstance, { ports }: ImageServices): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_, payload, done) => done(null, payload))

  app.put('/images/:id/file', { bodyLimit: Number.MAX_SAFE_INTEGER }, async (request, reply) => {
    assertStore(request.headers['x-image-meta-store'])
    await receive(request, (incoming) => upload(ports, callerOf(request), idOf(request.params), incoming))
    return reply.code(204).send()
  })
  app.route({
    method: ['GET', 'HEAD'],
    url: '/images/:id/file',
    handler: (request, reply) => answerDownload(ports, request, reply),
  })
  refuseOtherMethods(app, '/images/:id/file', ['GET', 'HEAD', 'PUT'])

  app.put('/images/:id/stage', { bodyLimit: Number.MAX_SAFE_INTEGER }, async (request, reply) => {
    await receive(request, (incoming) => stage(ports, callerOf(request), idOf(request.params), incoming))
    return reply.code(204).send()
  })
  refuseOtherMethods(app, '/images/:id/stage', ['PUT'])
}

/** @throws ServiceError `unsupported` where the body is not called bytes; what `take` throws; `cancelled` for a body cut off */
async function receive(request: FastifyRequest, take: (incoming: Incoming) => Promise<unknown>): Promise<void> {
  const contentType = request.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase()
  if (contentType !== BYTES) throw new ServiceError('unsupported', `image bytes are sent as ${BYTES}`)
  const length = request.headers['content-length']
  const gone = new AbortController()
  const leave = () => {
    if (!request.raw.complete) gone.abort(new ServiceError('cancelled', 'the client went away before its bytes had come'))
  }
  request.raw.once('close', leave)
  try {
    await take({ bytes: bodyOf(request), declaredBytes: length === undefined ? null : Number(length), signal: gone.signal })
  } finally {
    request.raw.off('close', leave)
    request.raw.resume() // what was not taken is read and thrown away, so that the client gets its answer
  }
}

async function* bodyOf({ raw }: FastifyRequest): AsyncGenerator<Uint8Array> {
  try {
    const isOurs = raw.socket instanceof Socket
    for await (const piece of piecesOf(raw)) {
      yield piece
      if (isOurs) free(piece)
    }
  } catch (cause) {
    throw new ServiceError('cancelled', 'the connection broke before all bytes had come', {}, { cause })
  }
}

/** Smaller buffers may be a shared one, cut up. */
const FREED_BYTES = 16 * KiB

/** Gives the memory of a piece that the HTTP parser copied for us back at once; the next collection of garbage is 64 MiB away. */
function free({ buffer, byteLength }: Uint8Array): void {
  if (byteLength < FREED_BYTES || buffer.byteLength !== byteLength || !(buffer instanceof ArrayBuffer)) return
  buffer.transfer(0)
}

function assertStore(store: string | readonly string[] | undefined): void {
  if (store !== undefined && store !== STORE_ID)
    throw new ServiceError('invalid-request', `there is no store of this name; there is ${STORE_ID}`)
}

async function answerDownload(
  ports: ImageServices['ports'],
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  let { wanted, contentType } = wantedFormat(request.query as Readonly<Record<string, unknown>>, request.headers.accept)
  reply.header('vary', 'accept')
  const open = (format: typeof wanted) => download(ports, callerOf(request), idOf(request.params), format)
  const isAsked = Object.hasOwn(request.query as object, 'format')
  const file = await open(wanted).catch((error: unknown) => {
    const isNotToBeHad = isServiceError(error, 'unsupported') || isServiceError(error, 'too-large')
    if (isAsked || wanted === undefined || !isNotToBeHad) throw error
    contentType = BYTES
    return open(undefined) // what a client would like best is a wish
  })
  if (!file) return reply.code(204).send()
  try {
    const { headers } = request
    if (matches(headers['if-none-match'], file.etag)) return reply.code(304).header('etag', file.etag).send()
    if (file.making && request.method !== 'HEAD') return await answerMade(request, reply, contentType, file.making)
    return await answerFile(request, reply, contentType, file)
  } finally {
    await file.close()
  }
}

/** Made for nobody so long, for a client that was told to come again. */
const LINGER_MS = 60_000

/**
 * Waits until the file is made. A client that prefers so (`Prefer: respond-async`) is told to come again, and how far it is, in place of
 * a silence which its line, or what lies between, may take for a dead one.
 */
async function answerMade(
  request: FastifyRequest,
  reply: FastifyReply,
  contentType: string,
  making: Making,
): Promise<FastifyReply> {
  const waitMs = waitAsked(request.headers.prefer)
  const gone = new AbortController()
  const leave = () => gone.abort()
  reply.raw.once('close', leave)
  if (reply.raw.destroyed) leave()
  const late = waitMs === null ? undefined : AbortSignal.timeout(waitMs)
  let file: Download
  try {
    file = await making.wait(
      late ? { signal: AbortSignal.any([gone.signal, late]), lingerMs: LINGER_MS } : { signal: gone.signal },
    )
  } catch (error) {
    if (!late?.aborted || !isServiceError(error, 'cancelled')) throw error
    const { isWaiting, doneBytes, totalBytes } = making.state
    const answer = { status: isWaiting ? 'waiting' : 'converting', done_bytes: doneBytes, total_bytes: totalBytes }
    const headers = { 'retry-after': '1', 'preference-applied': 'respond-async', 'cache-control': 'no-store' }
    return await reply.code(202).headers(headers).type('application/json').send(answer)
  } finally {
    reply.raw.off('close', leave)
  }
  try {
    return await answerFile(request, reply, contentType, file)
  } finally {
    await file.close()
  }
}

async function answerFile(
  request: FastifyRequest,
  reply: FastifyReply,
  contentType: string,
  file: Download,
): Promise<FastifyReply> {
  if (file.size === null) return answerStream(request, reply, contentType, file)
  const { headers } = request
  const range = askedRange(reply, headers, file.size, file.etag)
  const { offset, length } = range ?? { offset: 0, length: file.size }
  const status = range ? 206 : 200
  const answer = {
    'content-type': contentType,
    'content-length': String(length),
    'accept-ranges': 'bytes',
    etag: file.etag,
    ...(file.md5 === null ? {} : { 'content-md5': file.md5 }),
    ...(range ? { 'content-range': `bytes ${offset}-${offset + length - 1}/${file.size}` } : {}),
  }
  if (request.method === 'HEAD' || length === 0) return reply.code(status).headers(answer).send()
  await sendBytes(reply, status, answer, (signal) => file.lend(offset, length, signal))
  return reply
}

/** All of it, whatever range was asked for: its length is known when it is made. */
async function answerStream(
  request: FastifyRequest,
  reply: FastifyReply,
  contentType: string,
  file: Download,
): Promise<FastifyReply> {
  const answer = { 'content-type': contentType, 'accept-ranges': file.making ? 'bytes' : 'none', etag: file.etag }
  if (request.method === 'HEAD') return reply.code(200).headers(answer).send()
  await sendBytes(reply, 200, answer, (signal) => file.lend(0, Number.MAX_SAFE_INTEGER, signal))
  return reply
}

function askedRange(reply: FastifyReply, headers: FastifyRequest['headers'], size: number, etag: string): ByteRange | undefined {
  if (headers['if-range'] !== undefined && headers['if-range'] !== etag) return undefined // another file by now: all of it
  try {
    return rangeFrom(headers, size)
  } catch (error) {
    reply.header('content-range', `bytes */${size}`)
    throw error
  }
}

const matches = (condition: string | undefined, etag: string): boolean =>
  condition?.split(',', 100).some((tag) => tag.trim().replace(/^W\//, '') === etag || tag.trim() === '*') ?? false
