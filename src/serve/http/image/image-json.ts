import type { Caller } from '../../../base/caller.ts'
import { STORE_ID } from '../../../images/import/import-image.ts'
import { type PropertyProtections, readable } from '../../../images/protections/protections.ts'
import type { ImageRecord } from '../../../store/catalog/catalog.ts'

const MAX_CACHED_CHARACTERS = 16 * 1024 * 1024
const MAX_CACHED_SHARE = 64 // one image may take this part of it

/**
 * Images as JSON, in ASCII. A version of an image never changes, so its text is made once and kept while there is room, the least lately
 * shown going first. Where properties are protected, callers with different rights have texts of their own.
 */
export class ImageJson {
  readonly #protections: PropertyProtections
  readonly #texts = new Map<string, string>()
  readonly #lists = new WeakMap<readonly ImageRecord[], string>()
  #characters = 0

  constructor(protections: PropertyProtections) {
    this.#protections = protections
  }

  of(image: ImageRecord, caller: Caller): string {
    const key = `${image.id}${image.version}${this.#viewOf(caller)}`
    const known = this.#texts.get(key)
    if (known !== undefined) {
      this.#texts.delete(key)
      this.#texts.set(key, known)
      return known
    }
    const text = inAscii(JSON.stringify(imageView(image, readable(this.#protections, caller, image.properties))))
    this.#keep(key, text)
    return text
  }

  /** Members of a JSON array, without its brackets. The catalog gives the same array until something changes: its text stays as long. */
  listOf(images: readonly ImageRecord[], caller: Caller): string {
    const known = this.#lists.get(images)
    if (known !== undefined) return known
    const text = images.map((image) => this.of(image, caller)).join(', ')
    if (!this.#protections.enabled && Object.isFrozen(images)) this.#lists.set(images, text)
    return text
  }

  #viewOf(caller: Caller): string {
    if (!this.#protections.enabled) return ''
    return JSON.stringify([[...caller.roles].sort(), caller.projectId, caller.userId])
  }

  #keep(key: string, text: string): void {
    const characters = key.length + text.length
    if (characters > MAX_CACHED_CHARACTERS / MAX_CACHED_SHARE) return
    this.#texts.set(key, text)
    this.#characters += characters
    for (const [oldest, value] of this.#texts) {
      if (this.#characters <= MAX_CACHED_CHARACTERS) return
      this.#texts.delete(oldest)
      this.#characters -= oldest.length + value.length
    }
  }
}

/** The same JSON with every character beyond ASCII escaped: such text becomes bytes without a look at each character. */
export const inAscii = (json: string): string =>
  json.replace(/[\u0080-\uffff]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)

/** The record in the words of the API. */
export const imageView = (image: ImageRecord, properties: Readonly<Record<string, string>>) => ({
  ...properties,
  ...noteView(image.notes),
  name: image.name,
  disk_format: image.diskFormat,
  container_format: image.containerFormat,
  visibility: image.visibility,
  size: image.size,
  virtual_size: image.virtualSize,
  status: image.status,
  checksum: image.checksum,
  protected: image.protected,
  min_ram: image.minRam,
  min_disk: image.minDisk,
  owner: image.owner,
  os_hidden: image.hidden,
  os_hash_algo: image.hashAlgo,
  os_hash_value: image.hashValue,
  id: image.id,
  created_at: isoTime(image.createdAt),
  updated_at: isoTime(image.updatedAt),
  tags: image.tags,
  self: `/v2/images/${image.id}`,
  file: `/v2/images/${image.id}/file`,
  schema: '/v2/schemas/image',
  ...(image.manifest === null ? {} : { stores: STORE_ID }),
})

/** Which of the service's notes an image's readers see, and as what. */
const shownNotes: Readonly<Record<string, string>> = {
  importTask: 'os_glance_import_task',
  importingToStores: 'os_glance_importing_to_stores',
  failedImport: 'os_glance_failed_import',
  failure: 'imprint_failure',
  warnings: 'imprint_warnings',
  parentImage: 'imprint_parent_image',
  originMethod: 'imprint_origin_method',
  originUri: 'imprint_origin_uri',
  originCompression: 'imprint_origin_compression',
  originContainer: 'imprint_origin_container',
  originMember: 'imprint_origin_member',
  originFormat: 'imprint_origin_format',
  originSize: 'imprint_origin_size',
  originMd5: 'imprint_origin_md5',
  originSha256: 'imprint_origin_sha256',
  originSha512: 'imprint_origin_sha512',
  originVerified: 'imprint_origin_verified',
}

function noteView(notes: ImageRecord['notes']): Record<string, string> {
  const view: Record<string, string> = {}
  for (const [note, value] of Object.entries(notes)) {
    const name = shownNotes[note]
    if (name !== undefined) view[name] = String(value)
  }
  return view
}

/** `2026-11-21T09:46:45Z` */
export const isoTime = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`
