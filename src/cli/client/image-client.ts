import { ServiceError } from '../../base/errors.ts'
import type { Answer, HttpClient } from './http-client.ts'
import { Shape } from './shape.ts'

/** An image as the image API shows it. */
export interface Image {
  readonly id: string
  readonly name: string | null
  readonly status: string
  readonly visibility: string
  readonly owner: string | null
  readonly protected: boolean
  readonly hidden: boolean
  readonly diskFormat: string | null
  readonly containerFormat: string | null
  readonly minDiskGb: number
  readonly minRamMb: number
  readonly sizeBytes: number | null
  readonly virtualBytes: number | null
  readonly checksum: string | null
  readonly hashAlgorithm: string | null
  readonly hashValue: string | null
  readonly createdAt: string
  readonly updatedAt: string
  readonly tags: readonly string[]
  readonly properties: Readonly<Record<string, string>>
}
export interface Member {
  readonly memberId: string
  readonly status: string
  readonly createdAt: string
  readonly updatedAt: string
}
export interface PatchStep {
  readonly op: 'add' | 'replace' | 'remove'
  readonly path: string
  readonly value?: unknown
}

export interface WantedBytes {
  /** Absent: from the first. With an ETag: all of it, where the file is another one by now. */
  readonly from?: { readonly offset: number; readonly etag: string | null } | undefined
  /** `FORMAT` or `FORMAT:SUBFORMAT`; undefined: as it is kept. */
  readonly format: string | undefined
  readonly signal: AbortSignal
}
export interface Making {
  /** Whether others go first. */
  readonly isWaiting: boolean
  /** Bytes of the disk that are in the file, and of how many. */
  readonly doneBytes: number
  readonly totalBytes: number | null
}
/** So often a file that is being made is asked for: far below what any line takes for silence. */
const MAKING_WAIT_S = 2

const KNOWN = new Set(
  (
    'id name status visibility owner protected os_hidden disk_format container_format min_disk min_ram size virtual_size ' +
    'checksum os_hash_algo os_hash_value created_at updated_at tags self file schema stores direct_url locations'
  ).split(' '),
)
const PAGE = 200

/** The image API (Glance v2). */
export class ImageClient {
  readonly #http: HttpClient
  readonly #prefix: string

  constructor(http: HttpClient, prefix = '/image/v2') {
    this.#http = http
    this.#prefix = prefix
  }

  /** Every image that meets the filters, page by page. */
  async *list(
    filters: readonly (readonly [name: string, value: string])[],
    most = Number.POSITIVE_INFINITY,
  ): AsyncIterable<Image> {
    let marker: string | undefined
    for (let given = 0; given < most; ) {
      const query = new URLSearchParams(filters.map(([name, value]): [string, string] => [name, value]))
      query.set('limit', String(Math.min(PAGE, most - given)))
      if (marker) query.set('marker', marker)
      const answer = new Shape(await this.#http.json('GET', `${this.#prefix}/images?${query}`), 'answer')
      const page = answer.shapes('images').map(imageFrom)
      yield* page.slice(0, most - given)
      given += page.length
      marker = page.at(-1)?.id
      if (!marker || !answer.has('next')) return
    }
  }

  async show(id: string): Promise<Image> {
    return imageFrom(await this.#http.json('GET', `${this.#prefix}/images/${encodeURIComponent(id)}`))
  }

  /** @param fields in the words of the API: `disk_format` … */
  async create(fields: Readonly<Record<string, unknown>>): Promise<Image> {
    return imageFrom(await this.#http.json('POST', `${this.#prefix}/images`, fields))
  }

  async update(id: string, steps: readonly PatchStep[]): Promise<Image> {
    const headers = { 'content-type': 'application/openstack-images-v2.1-json-patch' }
    return imageFrom(await this.#http.json('PATCH', `${this.#prefix}/images/${encodeURIComponent(id)}`, steps, { headers }))
  }

  async remove(id: string): Promise<void> {
    await this.#http.json('DELETE', `${this.#prefix}/images/${encodeURIComponent(id)}`)
  }

  async act(id: string, action: 'deactivate' | 'reactivate'): Promise<void> {
    await this.#http.json('POST', `${this.#prefix}/images/${encodeURIComponent(id)}/actions/${action}`)
  }

  async tag(method: 'PUT' | 'DELETE', id: string, tag: string): Promise<void> {
    await this.#http.json(method, `${this.#prefix}/images/${encodeURIComponent(id)}/tags/${encodeURIComponent(tag)}`)
  }

  async members(id: string): Promise<readonly Member[]> {
    const answer = await this.#http.json('GET', `${this.#prefix}/images/${encodeURIComponent(id)}/members`)
    return new Shape(answer, 'answer').shapes('members').map(memberFrom)
  }
  async addMember(id: string, member: string): Promise<Member> {
    const path = `${this.#prefix}/images/${encodeURIComponent(id)}/members`
    return memberFrom(new Shape(await this.#http.json('POST', path, { member }), 'member'))
  }
  async removeMember(id: string, member: string): Promise<void> {
    await this.#http.json('DELETE', `${this.#prefix}/images/${encodeURIComponent(id)}/members/${encodeURIComponent(member)}`)
  }
  async answerMembership(id: string, member: string, status: 'accepted' | 'rejected' | 'pending'): Promise<Member> {
    const path = `${this.#prefix}/images/${encodeURIComponent(id)}/members/${encodeURIComponent(member)}`
    return memberFrom(new Shape(await this.#http.json('PUT', path, { status }), 'member'))
  }

  async importFromUrl(id: string, uri: string): Promise<void> {
    const body = { method: { name: 'web-download', uri } }
    await this.#http.json('POST', `${this.#prefix}/images/${encodeURIComponent(id)}/import`, body)
  }

  /** The newest task of an image: how an import goes. */
  async latestTask(id: string): Promise<{ readonly status: string; readonly message: string | null } | null> {
    const answer = await this.#http.json('GET', `${this.#prefix}/images/${encodeURIComponent(id)}/tasks`)
    const task = new Shape(answer, 'answer').shapes('tasks').at(-1)
    return task ? { status: task.text('status'), message: task.textOrNull('message') } : null
  }

  /**
   * Bytes of the file, or of the file converted. Status 200, 206, or 202: it is being made (`makingFrom`), ask again.
   * @throws ServiceError `range-not-satisfiable` too
   */
  async download(id: string, { from, format, signal }: WantedBytes): Promise<Answer> {
    const [name, subformat] = format?.split(':', 2) ?? []
    const query = new URLSearchParams({ ...(name ? { format: name } : {}), ...(subformat ? { subformat } : {}) })
    const path = `${this.#prefix}/images/${encodeURIComponent(id)}/file${query.size > 0 ? `?${query}` : ''}`
    const headers: Record<string, string> = { accept: 'application/octet-stream' }
    if (name) headers.prefer = `respond-async, wait=${MAKING_WAIT_S}`
    if (from) {
      headers.range = `bytes=${from.offset}-`
      if (from.etag !== null) headers['if-range'] = from.etag
    }
    return this.#http.ask({ method: 'GET', path, headers, signal })
  }

  /** How far a file is that is made before it can be had: the body of a 202. */
  async makingFrom(answer: Answer): Promise<Making> {
    const shape = new Shape(await this.#http.jsonOf(answer), 'answer')
    return {
      isWaiting: shape.text('status') === 'waiting',
      doneBytes: shape.numberOrNull('done_bytes') ?? 0,
      totalBytes: shape.numberOrNull('total_bytes'),
    }
  }

  /**
   * The one image that a user means by an id or a name.
   * @throws ServiceError `not-found`; `conflict` listing the images that share the name
   */
  async find(nameOrId: string, candidates?: readonly (readonly [string, string])[]): Promise<Image> {
    if (UUID.test(nameOrId)) {
      try {
        return await this.show(nameOrId.toLowerCase())
      } catch (error) {
        if (!(error instanceof ServiceError) || error.code !== 'not-found') throw error
      }
    }
    const found = new Map<string, Image>()
    const views = candidates ? [candidates] : [[], [['visibility', 'community']] as const, [['os_hidden', 'true']] as const]
    const byName = nameFilter(nameOrId)
    for (const view of views) {
      for await (const image of this.list([...byName, ...view])) {
        if (image.name === nameOrId) found.set(image.id, image)
        if (found.size > MAX_NAMESAKES) break
      }
    }
    const [only, ...more] = found.values()
    if (!only) {
      throw new ServiceError('not-found', `there is no image "${nameOrId}" that you can see; imprint image list shows them`)
    }
    if (more.length === 0) return only
    const lines = [only, ...more].map(
      ({ id, status, visibility, createdAt }) => `  ${id}  ${status}  ${visibility}  ${createdAt}`,
    )
    throw new ServiceError('conflict', `${lines.length} images are named "${nameOrId}"; use the id of one:\n${lines.join('\n')}`)
  }
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** More of one name are not listed. */
const MAX_NAMESAKES = 20

/**
 * The filter that finds a name. The API reads `word:…` as an operator, so that a colon must stand inside `in:"…"`, where a
 * quotation mark cannot: a name with both is found by looking at every image.
 */
function nameFilter(name: string): readonly (readonly [string, string])[] {
  if (!name.includes(':')) return [['name', name]]
  return /["\\]/.test(name) ? [] : [['name', `in:"${name}"`]]
}

export function imageFrom(answer: unknown): Image {
  const shape = answer instanceof Shape ? answer : new Shape(answer, 'image')
  return {
    id: shape.text('id'),
    name: shape.textOrNull('name'),
    status: shape.text('status'),
    visibility: shape.text('visibility'),
    owner: shape.textOrNull('owner'),
    protected: shape.flag('protected'),
    hidden: shape.flag('os_hidden'),
    diskFormat: shape.textOrNull('disk_format'),
    containerFormat: shape.textOrNull('container_format'),
    minDiskGb: shape.numberOrNull('min_disk') ?? 0,
    minRamMb: shape.numberOrNull('min_ram') ?? 0,
    sizeBytes: shape.numberOrNull('size'),
    virtualBytes: shape.numberOrNull('virtual_size'),
    checksum: shape.textOrNull('checksum'),
    hashAlgorithm: shape.textOrNull('os_hash_algo'),
    hashValue: shape.textOrNull('os_hash_value'),
    createdAt: shape.text('created_at'),
    updatedAt: shape.text('updated_at'),
    tags: shape.texts('tags'),
    properties: shape.otherTexts(KNOWN),
  }
}

const memberFrom = (shape: Shape): Member => ({
  memberId: shape.text('member_id'),
  status: shape.text('status'),
  createdAt: shape.text('created_at'),
  updatedAt: shape.text('updated_at'),
})
