import { ServiceError } from '../base/errors.ts'
import type { ImageRecord, Visibility } from '../store/catalog/catalog.ts'
import { isImageId } from './find-image.ts'

/** What an image record is made of in the words of the API: which members there are, what each takes, who sets it. */

export const containerFormats = ['ami', 'ari', 'aki', 'bare', 'ovf', 'ova', 'docker', 'compressed'] as const
export const diskFormatNames = ['ami', 'ari', 'aki', 'vhd', 'vhdx', 'vmdk', 'raw', 'qcow2', 'vdi', 'iso', 'ploop'] as const
export const visibilities: readonly Visibility[] = ['community', 'public', 'private', 'shared']

const MAX_TEXT = 255
const MAX_NUMBER = 2 ** 31 - 1 // what clients and their databases keep
const MAX_VALUE_CHARACTERS = 65_535
/** Of one image: as many as Glance allows, so that a record stays small enough to be read whole in a list. */
export const MAX_PROPERTIES = 128
/** Names and values together: a list holds up to a thousand records at once, and writes them all into one answer. */
export const MAX_PROPERTIES_CHARACTERS = 256 * 1024
export const MAX_TAGS = 128
export const MAX_MEMBERS = 128

type Field =
  | 'name'
  | 'visibility'
  | 'protected'
  | 'hidden'
  | 'owner'
  | 'diskFormat'
  | 'containerFormat'
  | 'minDisk'
  | 'minRam'
  | 'tags'
interface Attribute {
  readonly field: Field
  readonly takes: string
  readonly accepts: (value: unknown) => boolean
}

/** Text that every store and every client can keep: whole characters, no NUL. */
const isText = (value: unknown, most: number): value is string =>
  typeof value === 'string' &&
  (value.length <= most || (value.length <= 2 * most && [...value].length <= most)) &&
  value.isWellFormed() &&
  !value.includes('\0')
const textOrNull = (value: unknown): boolean => value === null || isText(value, MAX_TEXT)
const isBoolean = (value: unknown): boolean => typeof value === 'boolean'
const isCount = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_NUMBER
const oneOf =
  (...values: readonly unknown[]) =>
  (value: unknown): boolean =>
    values.includes(value)
export const isTag = (value: unknown): value is string => isText(value, MAX_TEXT)

const countText = `a whole number from 0 to ${MAX_NUMBER}`

/** The members of an image that clients may set. Everything else is read-only, reserved, or a custom property. */
const attributes = {
  name: { field: 'name', takes: `text of at most ${MAX_TEXT} characters, or null`, accepts: textOrNull },
  visibility: { field: 'visibility', takes: visibilities.join(', '), accepts: oneOf(...visibilities) },
  protected: { field: 'protected', takes: 'true or false', accepts: isBoolean },
  os_hidden: { field: 'hidden', takes: 'true or false', accepts: isBoolean },
  owner: { field: 'owner', takes: 'a project id, or null', accepts: textOrNull },
  disk_format: { field: 'diskFormat', takes: `${diskFormatNames.join(', ')}, or null`, accepts: oneOf(null, ...diskFormatNames) },
  container_format: {
    field: 'containerFormat',
    takes: `${containerFormats.join(', ')}, or null`,
    accepts: oneOf(null, ...containerFormats),
  },
  min_disk: { field: 'minDisk', takes: countText, accepts: isCount },
  min_ram: { field: 'minRam', takes: countText, accepts: isCount },
  tags: {
    field: 'tags',
    takes: `a list of texts of at most ${MAX_TEXT} characters`,
    accepts: (value) => Array.isArray(value) && value.every(isTag),
  },
} as const satisfies Record<string, Attribute>

export type AttributeName = keyof typeof attributes
export const isAttribute = (name: string): name is AttributeName => Object.hasOwn(attributes, name)
export const fieldOf = (name: AttributeName): Field => attributes[name].field

const readOnly: ReadonlySet<string> = new Set([
  'created_at',
  'updated_at',
  'status',
  'checksum',
  'size',
  'virtual_size',
  'direct_url',
  'self',
  'file',
  'schema',
  'stores',
  'os_hash_algo',
  'os_hash_value',
])
const reserved: ReadonlySet<string> = new Set(['location', 'locations', 'deleted', 'deleted_at'])
/** Glance's own name space, and ours: what the service says about an image stands there. */
const reservedPrefixes = ['os_glance_', 'imprint_']

/** @throws ServiceError `denied` */
export function assertSettable(name: string): void {
  if (readOnly.has(name)) throw new ServiceError('denied', `attribute "${name}" is read-only: the service sets it`)
  if (reserved.has(name) || reservedPrefixes.some((prefix) => name.startsWith(prefix))) {
    throw new ServiceError('denied', `attribute ${quoted(name)} is reserved for the service`)
  }
}

/** @throws ServiceError `invalid-request`, naming the attribute and what it takes */
export function assertValue(name: string, value: unknown): void {
  if (isAttribute(name)) {
    const { accepts, takes }: Attribute = attributes[name]
    if (!accepts(value)) throw new ServiceError('invalid-request', `attribute "${name}" takes ${takes}`)
    return
  }
  assertPropertyName(name)
  if ((name === 'kernel_id' || name === 'ramdisk_id') && (value === null || (typeof value === 'string' && isImageId(value))))
    return
  if (name === 'kernel_id' || name === 'ramdisk_id') {
    throw new ServiceError('invalid-request', `property "${name}" takes the id of an image, or null`)
  }
  if (name === 'cinder_encryption_key_deletion_policy' && value !== 'on_image_deletion' && value !== 'do_not_delete') {
    throw new ServiceError('invalid-request', `property "${name}" takes on_image_deletion or do_not_delete`)
  }
  if (!isText(value, MAX_VALUE_CHARACTERS)) {
    throw new ServiceError('invalid-request', `property ${quoted(name)} takes text of at most ${MAX_VALUE_CHARACTERS} characters`)
  }
}

function assertPropertyName(name: string): void {
  if (name === '' || name === '__proto__' || !isText(name, MAX_TEXT)) {
    throw new ServiceError(
      'invalid-request',
      `a property's name is text of 1 to ${MAX_TEXT} characters; ${quoted(name)} cannot be one`,
    )
  }
}

/** @throws ServiceError `too-large` */
export function assertCounts({ tags, properties }: Pick<ImageRecord, 'tags' | 'properties'>): void {
  assertAtMost('tags', tags.length, MAX_TAGS)
  assertAtMost('properties', Object.keys(properties).length, MAX_PROPERTIES)
  const characters = Object.entries(properties).reduce((sum, [name, value]) => sum + name.length + value.length, 0)
  assertAtMost('characters in its properties', characters, MAX_PROPERTIES_CHARACTERS)
}
export function assertAtMost(what: string, count: number, most: number): void {
  if (count > most)
    throw new ServiceError('too-large', `an image has at most ${most} ${what}; this would make ${count}`, { max: most })
}

export const quoted = (name: string): string => JSON.stringify(name.slice(0, 80))

/** An image that is asked for, checked member by member. */
export type NewImage = Pick<ImageRecord, Exclude<Field, 'owner'> | 'properties'> & {
  readonly id?: string
  /** Absent: the caller's project. */
  readonly owner?: string | null
}

const atFirst: NewImage = {
  name: null,
  visibility: 'shared',
  protected: false,
  hidden: false,
  diskFormat: null,
  containerFormat: null,
  minDisk: 0,
  minRam: 0,
  tags: [],
  properties: {},
}

/**
 * @param body the members of a create request, from outside
 * @throws ServiceError `invalid-request`; `denied` for what only the service sets
 */
export function newImageFrom(body: Readonly<Record<string, unknown>>): NewImage {
  const { id, ...members } = body
  if (id !== undefined && !(typeof id === 'string' && isImageId(id))) {
    throw new ServiceError('invalid-request', 'attribute "id" takes a UUID, as 12345678-1234-1234-1234-123456789abc')
  }
  const fields: Partial<Record<Field, unknown>> = {}
  const properties: [string, string][] = []
  const names = Object.keys(members)
  for (const name of names) if (!readOnly.has(name) && !reserved.has(name)) assertValue(name, members[name])
  for (const name of names) {
    assertSettable(name)
    if (isAttribute(name)) fields[attributes[name].field] = members[name]
    else if (members[name] !== null) properties.push([name, members[name] as string])
  }
  return {
    ...atFirst,
    ...(fields as Partial<NewImage>),
    ...(fields.owner === '' ? { owner: null } : {}),
    properties: Object.fromEntries(properties),
    ...(id === undefined ? {} : { id: id.toLowerCase() }),
  }
}
