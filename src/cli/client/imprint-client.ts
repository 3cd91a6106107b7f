import { isServiceError, ServiceError } from '../../base/errors.ts'
import { encodeLayout } from '../../store/content/encode-chunks.ts'
import { type HttpClient, strange } from './http-client.ts'
import { type Image, imageFrom } from './image-client.ts'
import { Shape } from './shape.ts'

export interface ImageSizes {
  readonly fileBytes: number
  /** Null where the disk in the file is not known. */
  readonly virtualBytes: number | null
  readonly allocatedBytes: number
  readonly storedBytes: number
  readonly exclusiveBytes: number
}
/** What an image holds beside its disk. */
export interface ImagePart {
  readonly name: string
  readonly kind: string
  readonly bytes: number
}
export interface Upload {
  readonly id: string
  readonly imageId: string
  readonly chunkBytes: number
}
export interface Usage {
  readonly name: string
  readonly limit: number
  readonly usage: number
}
export interface Export {
  readonly id: string
  /** Null: a blank disk. */
  readonly image: { readonly id: string; readonly name: string | null } | null
  readonly diskBytes: number
  readonly writable: boolean
  /** ISO 8601. */
  readonly createdAt: string
  readonly expiresAt: string
}
export interface NewExport extends Export {
  readonly uris: { readonly unix: string; readonly tcp: string | null }
}
export interface BackupPlan {
  readonly everyHours: number
  /** `daily`, or another word. */
  readonly backupType: string
  /** How many of that type are kept. */
  readonly rotation: number
}
/** A machine that starts from the network and is written with an image. */
export interface Deployment {
  readonly id: string
  readonly image: { readonly id: string; readonly name: string | null }
  /** MAC; null: the first machine that asks. */
  readonly machine: string | null
  readonly target: string
  readonly state: string
  readonly doneBytes: number
  readonly totalBytes: number | null
  readonly message: string | null
  /** ISO 8601. */
  readonly createdAt: string
  readonly expiresAt: string
}
/** How an instance came to its host. */
export interface InstanceMigration {
  readonly from: string
  readonly to: string
  /** Null: nobody knows. */
  readonly downtimeMs: number | null
  readonly bytes: number | null
  /** ISO 8601. */
  readonly at: string
}
/** A line of a job's answer. */
export type JobLine =
  | { readonly kind: 'progress'; readonly phase: string; readonly done: number; readonly total: number }
  | { readonly kind: 'fault'; readonly fault: Shape; readonly raw: unknown }
  | { readonly kind: 'result'; readonly result: Shape; readonly raw: unknown }

const MAX_CHUNK_BYTES = 4 * 1024 * 1024

/** `/v1`: what no cloud API has. */
export class ImprintClient {
  readonly #http: HttpClient

  constructor(http: HttpClient) {
    this.#http = http
  }

  async status(): Promise<unknown> {
    return this.#http.json('GET', '/v1/status')
  }

  async sizes(imageId: string): Promise<ImageSizes> {
    const shape = new Shape(await this.#http.json('GET', `/v1/images/${encodeURIComponent(imageId)}/sizes`), 'sizes')
    return {
      fileBytes: shape.number('fileBytes'),
      virtualBytes: shape.numberOrNull('virtualBytes'),
      allocatedBytes: shape.number('allocatedBytes'),
      storedBytes: shape.number('storedBytes'),
      exclusiveBytes: shape.number('exclusiveBytes'),
    }
  }

  async parts(imageId: string): Promise<readonly ImagePart[]> {
    const shape = new Shape(await this.#http.json('GET', `/v1/images/${encodeURIComponent(imageId)}/parts`), 'answer')
    return shape
      .shapes('parts')
      .map((part) => ({ name: part.text('name'), kind: part.text('kind'), bytes: part.number('bytes') }))
  }

  async audit(imageId: string): Promise<{ readonly raw: unknown; readonly entries: readonly Shape[] }> {
    const raw = await this.#http.json('GET', `/v1/images/${encodeURIComponent(imageId)}/audit`)
    return { raw, entries: new Shape(raw, 'answer').shapes('entries') }
  }

  async quota(projectId: string): Promise<readonly Usage[]> {
    return usagesFrom(await this.#http.json('GET', `/v1/projects/${encodeURIComponent(projectId)}/quota`))
  }
  async setQuota(projectId: string, limits: Readonly<Record<string, number>>): Promise<readonly Usage[]> {
    return usagesFrom(await this.#http.json('PUT', `/v1/projects/${encodeURIComponent(projectId)}/quota`, { limits }))
  }

  async createExport(fields: Readonly<Record<string, string | number | boolean>>): Promise<NewExport> {
    const shape = new Shape(await this.#http.json('POST', '/v1/exports', fields), 'export')
    const uris = shape.shape('uris')
    return { ...exportFrom(shape), uris: { unix: nbdUri(uris.text('unix')), tcp: nbdUri(uris.textOrNull('tcp')) } }
  }
  async exports(): Promise<readonly Export[]> {
    return new Shape(await this.#http.json('GET', '/v1/exports'), 'answer').shapes('exports').map(exportFrom)
  }
  async renewExport(id: string, seconds?: number): Promise<Export> {
    const path = `/v1/exports/${encodeURIComponent(id)}/renew`
    return exportFrom(new Shape(await this.#http.json('POST', path, seconds === undefined ? {} : { seconds }), 'export'))
  }
  async endExport(id: string, signal?: AbortSignal): Promise<void> {
    await this.#http.json('DELETE', `/v1/exports/${encodeURIComponent(id)}`, undefined, signal ? { signal } : {})
  }

  /** @returns id of the image, which is being made */
  async snapshot(instanceId: string, fields: Readonly<Record<string, string | boolean>>): Promise<string> {
    const path = `/v1/instances/${encodeURIComponent(instanceId)}/snapshots`
    return new Shape(await this.#http.json('POST', path, fields), 'answer').text('image')
  }
  async restore(instanceId: string, fields: Readonly<Record<string, string | boolean>>): Promise<void> {
    await this.#http.json('POST', `/v1/instances/${encodeURIComponent(instanceId)}/restore`, fields)
  }
  /** @returns id of the new instance */
  async clone(instanceId: string, name: string): Promise<string> {
    const path = `/v1/instances/${encodeURIComponent(instanceId)}/clone`
    return new Shape(await this.#http.json('POST', path, { name }), 'answer').text('id')
  }
  /** Makes the machine of a snapshot again. @returns id of the new instance */
  async makeMachine(fields: Readonly<Record<string, string | boolean>>): Promise<string> {
    return new Shape(await this.#http.json('POST', '/v1/instances', fields), 'answer').text('id')
  }
  /** @param plan null: there shall be no more */
  async scheduleBackups(instanceId: string, plan: BackupPlan | null): Promise<void> {
    const path = `/v1/instances/${encodeURIComponent(instanceId)}/backup-schedule`
    if (plan === null) await this.#http.json('DELETE', path)
    else await this.#http.json('PUT', path, plan)
  }

  async allowDeployment(fields: Readonly<Record<string, string | number | null>>): Promise<Deployment> {
    return deploymentFrom(new Shape(await this.#http.json('POST', '/v1/deployments', fields), 'deployment'))
  }
  async deployments(): Promise<readonly Deployment[]> {
    return new Shape(await this.#http.json('GET', '/v1/deployments'), 'answer').shapes('deployments').map(deploymentFrom)
  }
  async forgetDeployment(id: string): Promise<void> {
    await this.#http.json('DELETE', `/v1/deployments/${encodeURIComponent(id)}`)
  }

  async migrate(instanceId: string, host: string | null): Promise<void> {
    await this.#http.json('POST', `/v1/instances/${encodeURIComponent(instanceId)}/migrate`, host === null ? {} : { host })
  }

  /** Null: it was made where it is. */
  async migration(instanceId: string): Promise<InstanceMigration | null> {
    try {
      const answer = await this.#http.json('GET', `/v1/instances/${encodeURIComponent(instanceId)}/migration`)
      const shape = new Shape(answer, 'migration')
      return {
        from: shape.text('from'),
        to: shape.text('to'),
        downtimeMs: shape.numberOrNull('downtimeMs'),
        bytes: shape.numberOrNull('bytes'),
        at: shape.text('at'),
      }
    } catch (error) {
      if (isServiceError(error, 'not-found')) return null
      throw error
    }
  }

  async storeStats(): Promise<{ readonly raw: unknown; readonly stats: Shape }> {
    const raw = await this.#http.json('GET', '/v1/store')
    return { raw, stats: new Shape(raw, 'store') }
  }

  /** Starts a job and follows it; leaving the loop, or `signal`, ends the job. */
  async *job(
    name: 'check' | 'collect' | 'rebuild' | 'backup',
    options: Readonly<Record<string, boolean | string>>,
    signal: AbortSignal,
  ): AsyncIterable<JobLine> {
    const ask = {
      method: 'POST',
      path: `/v1/store/${name}`,
      headers: { 'content-type': 'application/json', accept: 'application/x-ndjson' },
      body: Buffer.from(JSON.stringify(options)),
      signal,
    } as const
    let ended = false
    for await (const raw of this.#http.lines(ask)) {
      const line = new Shape(raw, 'line')
      if (line.has('error')) throw failureOf(line.shape('error'))
      if (line.has('progress')) {
        const progress = line.shape('progress')
        const [phase, done, total] = [progress.text('phase'), progress.number('done'), progress.number('total')]
        yield { kind: 'progress', phase, done, total }
      } else if (line.has('fault')) {
        yield { kind: 'fault', fault: line.shape('fault'), raw: (raw as { fault: unknown }).fault }
      } else if (line.has('result')) {
        ended = true
        yield { kind: 'result', result: line.shape('result'), raw: (raw as { result: unknown }).result }
      }
    }
    if (!ended) throw strange('the job broke off without a result')
  }

  // ---------------------------------------------------------------- uploads by chunks

  /**
   * Begins an upload, or takes up one that `fields.resume` names, with what is said of the image now.
   * @throws ServiceError `not-found` where the service has let go of the one to resume
   */
  async beginUpload(fields: Readonly<Record<string, unknown>>): Promise<Upload> {
    return uploadFrom(await this.#http.json('POST', '/v1/uploads', fields))
  }

  /** @param digests n × 32 bytes @returns n bytes, 1 = to be sent */
  async lacks(uploadId: string, digests: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const count = digests.length / 32
    const path = `/v1/uploads/${encodeURIComponent(uploadId)}/lacks`
    const headers = { 'content-type': 'application/octet-stream', accept: 'application/octet-stream' }
    const answer = await this.#http.bytes({ method: 'POST', path, headers, body: digests, signal }, count)
    if (answer.length !== count) throw strange(`asked about ${count} chunks, it answered for ${answer.length}`)
    return answer
  }

  /** @param frames as `encodeChunks` makes them */
  async putFrames(uploadId: string, frames: Uint8Array, signal: AbortSignal): Promise<void> {
    const path = `/v1/uploads/${encodeURIComponent(uploadId)}/chunks`
    await this.#http.bytes(
      { method: 'PUT', path, headers: { 'content-type': 'application/octet-stream' }, body: frames, signal },
      4096,
    )
  }

  /** Makes the image. Said twice, it answers twice the same. */
  async commitUpload(uploadId: string, chunks: AsyncIterable<Uint8Array | null>, signal: AbortSignal): Promise<Image> {
    const path = `/v1/uploads/${encodeURIComponent(uploadId)}/commit`
    const headers = { 'content-type': 'application/octet-stream' }
    const answer = await this.#http.bytes({ method: 'POST', path, headers, body: encodeLayout(chunks), signal }, 1024 * 1024)
    return imageFrom(new Shape(JSON.parse(Buffer.from(answer).toString('utf8')), 'answer').shape('image'))
  }

  async abandonUpload(id: string): Promise<void> {
    await this.#http.json('DELETE', `/v1/uploads/${encodeURIComponent(id)}`)
  }
}

function uploadFrom(answer: unknown): Upload {
  const shape = new Shape(answer, 'upload')
  const chunkBytes = shape.number('chunkBytes')
  const sane = Number.isInteger(Math.log2(chunkBytes)) && chunkBytes >= 4096 && chunkBytes <= MAX_CHUNK_BYTES
  if (!sane) throw strange(`it names a chunk size of ${chunkBytes} bytes`)
  return { id: shape.text('id'), imageId: shape.text('imageId'), chunkBytes }
}

function exportFrom(shape: Shape): Export {
  const image = shape.isNull('image') ? null : shape.shape('image')
  return {
    id: shape.text('id'),
    image: image && { id: image.text('id'), name: image.textOrNull('name') },
    diskBytes: shape.number('diskBytes'),
    writable: shape.flag('writable'),
    createdAt: shape.text('createdAt'),
    expiresAt: shape.text('expiresAt'),
  }
}

function deploymentFrom(shape: Shape): Deployment {
  const image = shape.shape('image')
  return {
    id: shape.text('id'),
    image: { id: image.text('id'), name: image.textOrNull('name') },
    machine: shape.textOrNull('machine'),
    target: shape.text('target'),
    state: shape.text('state'),
    doneBytes: shape.number('doneBytes'),
    totalBytes: shape.numberOrNull('totalBytes'),
    message: shape.textOrNull('message'),
    createdAt: shape.text('createdAt'),
    expiresAt: shape.text('expiresAt'),
  }
}

/** An address that may be shown to people and given to programs. @throws ServiceError where it is none */
function nbdUri<T extends string | null>(uri: T): T {
  if (uri !== null && !/^nbds?(\+unix)?:\/\/[!-~]+$/.test(uri)) throw strange('it names an NBD address that is none')
  return uri
}

const usagesFrom = (answer: unknown): readonly Usage[] =>
  new Shape(answer, 'quota')
    .shapes('quotas')
    .map((one) => ({ name: one.text('name'), limit: one.number('limit'), usage: one.number('usage') }))

function failureOf(error: Shape): ServiceError {
  const message = error.textOrNull('message') ?? 'the job failed'
  const told = error.textOrNull('code')
  const code = (['conflict', 'corrupt', 'cancelled', 'invalid-request', 'no-space'] as const).find((known) => known === told)
  return new ServiceError(code ?? 'unavailable', message)
}
