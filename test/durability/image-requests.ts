/** The few requests that the durability and load tests make, in the words of the tests. */
import { createCipheriv, createHash } from 'node:crypto'
import { encodeChunks, encodeLayout } from '../../src/store/content/encode-chunks.ts'

/** An answer that is no success. A connection that broke is some other error. */
export class Refused extends Error {
  override readonly name = 'Refused'
  readonly status: number
  /** As in docs/errors.md. */
  readonly code: string | null
  constructor(what: string, status: number, code: string | null, body: string) {
    super(`${what}: ${status} ${code} ${body.slice(0, 300)}`)
    this.status = status
    this.code = code
  }
}

export interface ShownImage {
  readonly id: string
  readonly name: string | null
  readonly status: string
  readonly size: number | null
  /** Why it is queued again. */
  readonly failure: string | undefined
}
export interface StoreReport {
  readonly chunks: number
  readonly packs: number
  readonly manifests: number
}
export interface Fault {
  readonly kind: string
  readonly message: string
  readonly images: readonly { readonly id: string }[]
}
export interface ChunkUpload {
  readonly id: string
  readonly imageId: string
}

export type Body = NonNullable<RequestInit['body']>

export const CHUNK_BYTES = 65536

export class ImageRequests {
  readonly address: string
  readonly token: string

  constructor(address: string, token: string) {
    this.address = address
    this.token = token
  }

  async ask(method: string, path: string, body?: Body, headers: Readonly<Record<string, string>> = {}): Promise<Response> {
    const sent = { 'x-auth-token': this.token, ...headers }
    const init = { method, headers: sent, ...(body ? { body, duplex: 'half' as const } : {}) }
    const response = await fetch(this.address + path, init)
    if (response.ok) return response
    const text = await response.text()
    throw new Refused(`${method} ${path}`, response.status, response.headers.get('x-imprint-error'), text)
  }

  async json<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await this.ask(method, path, body === undefined ? undefined : JSON.stringify(body), {
      'content-type': 'application/json',
    })
    const text = await response.text()
    return (text ? JSON.parse(text) : undefined) as T
  }

  async create(id: string, name: string, diskFormat = 'raw'): Promise<void> {
    await this.json('POST', '/image/v2/images', { id, name, disk_format: diskFormat, container_format: 'bare' })
  }

  async show(id: string): Promise<ShownImage | undefined> {
    const image = await this.json<ShownImage & { readonly imprint_failure?: string }>('GET', `/image/v2/images/${id}`).catch(
      (error: unknown) => {
        if (error instanceof Refused && error.status === 404) return undefined
        throw error
      },
    )
    return image && { ...image, failure: image.imprint_failure }
  }

  async list(): Promise<readonly ShownImage[]> {
    return (await this.json<{ readonly images: readonly ShownImage[] }>('GET', '/image/v2/images?limit=1000')).images
  }

  async send(id: string, bytes: Body, place: 'file' | 'stage' = 'file'): Promise<void> {
    await this.ask('PUT', `/image/v2/images/${id}/${place}`, bytes, { 'content-type': 'application/octet-stream' })
  }

  /** All bytes. Throws where the connection is cut before the end. */
  async fetch(id: string, query = ''): Promise<Buffer> {
    const response = await this.ask('GET', `/image/v2/images/${id}/file${query}`)
    return Buffer.from(await response.arrayBuffer())
  }

  async import(id: string): Promise<void> {
    await this.json('POST', `/image/v2/images/${id}/import`, { method: { name: 'glance-direct' } })
  }

  async rename(id: string, name: string): Promise<void> {
    const patch = JSON.stringify([{ op: 'replace', path: '/name', value: name }])
    await this.ask('PATCH', `/image/v2/images/${id}`, patch, {
      'content-type': 'application/openstack-images-v2.1-json-patch',
    })
  }

  async tag(id: string, tag: string): Promise<void> {
    await this.ask('PUT', `/image/v2/images/${id}/tags/${tag}`)
  }

  async delete(id: string): Promise<void> {
    await this.ask('DELETE', `/image/v2/images/${id}`)
  }

  async beginUpload(name: string, bytes: Uint8Array): Promise<ChunkUpload> {
    return this.json('POST', '/v1/uploads', { fileBytes: bytes.length, diskFormat: 'raw', image: { name } })
  }

  async sendChunks({ id }: ChunkUpload, bytes: Uint8Array): Promise<void> {
    const frames = piecesOf(bytes)
      .filter((piece) => !isZero(piece))
      .map((piece) => ({ digest: sha256(piece), codec: 'plain' as const, bytes: piece }))
    const body = new Uint8Array(encodeChunks(frames))
    await this.ask('PUT', `/v1/uploads/${id}/chunks`, body, { 'content-type': 'application/octet-stream' })
  }

  async commitUpload({ id }: ChunkUpload, bytes: Uint8Array): Promise<void> {
    const layout = async function* () {
      for (const piece of piecesOf(bytes)) yield isZero(piece) ? null : sha256(piece)
    }
    const body = Buffer.concat(await Array.fromAsync(encodeLayout(layout())))
    await this.ask('POST', `/v1/uploads/${id}/commit`, body, { 'content-type': 'application/octet-stream' })
  }

  async abandonUpload({ id }: ChunkUpload): Promise<void> {
    await this.ask('DELETE', `/v1/uploads/${id}`)
  }

  /** Runs a job of the store to its end. @returns its result and the faults on the way */
  async job(name: 'collect' | 'check' | 'rebuild' | 'backup', options: object = {}) {
    const response = await this.ask('POST', `/v1/store/${name}`, JSON.stringify(options), { 'content-type': 'application/json' })
    const lines = (await response.text())
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line))
    const end = lines.at(-1)
    if (!end?.result) throw new Refused(`job ${name}`, 200, end?.error?.code ?? null, JSON.stringify(end))
    const faults: readonly Fault[] = lines.filter((line) => line.fault).map((line) => line.fault)
    return { result: end.result, faults }
  }

  stats(): Promise<StoreReport> {
    return this.json('GET', '/v1/store')
  }

  /** What the service counts against the project's limits. */
  async usage(): Promise<Readonly<Record<string, number>>> {
    const { projects } = await this.json<{ projects: { id: string }[] }>('GET', '/identity/v3/auth/projects')
    const path = `/v1/projects/${projects[0]!.id}/quota`
    const { quotas } = await this.json<{ quotas: { name: string; usage: number }[] }>('GET', path)
    return Object.fromEntries(quotas.map(({ name, usage }) => [name, usage]))
  }
}

/** Bytes that no compressor shortens; the same for the same seed. */
export function noise(seed: number, bytes: number): Buffer {
  const key = createHash('md5').update(`noise ${seed}`).digest()
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(bytes))
}

/** A small disk: a part that every disk of this test has, a hole, a part of its own. */
export function smallDisk(seed: number, ownBytes = 150 * 1024): Buffer {
  return Buffer.concat([noise(0, 2 * CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES), noise(1000 + seed, ownBytes)])
}

export const sha256 = (bytes: Uint8Array): Uint8Array => new Uint8Array(createHash('sha256').update(bytes).digest())
const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)
export function piecesOf(bytes: Uint8Array): Uint8Array[] {
  return Array.from({ length: Math.ceil(bytes.length / CHUNK_BYTES) }, (_, piece) =>
    bytes.subarray(piece * CHUNK_BYTES, (piece + 1) * CHUNK_BYTES),
  )
}

/** What a store that holds just these files counts: docs/store-format.md, worked out anew. Files of one page only. */
export function countsOf(files: readonly Uint8Array[]): Omit<StoreReport, 'packs'> {
  const data = new Set<string>()
  const pages = new Set<string>()
  const roots = new Set<string>()
  for (const file of files) {
    const digests = piecesOf(file).map((piece) => (isZero(piece) ? '' : Buffer.from(sha256(piece)).toString('hex')))
    for (const digest of digests) if (digest) data.add(digest)
    const page = digests.join()
    if (digests.some(Boolean)) pages.add(page)
    roots.add(`${file.length} ${page}`)
  }
  return { chunks: data.size + pages.size + roots.size, manifests: roots.size }
}
