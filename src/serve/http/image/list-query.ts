import { ServiceError } from '../../../base/errors.ts'
import type { ListRequest } from '../../../images/list-images.ts'
import type { ImageRecord, ImageStatus, SortKey, TimeCondition } from '../../../store/catalog/catalog.ts'
import { parseIsoTime, splitOperator, splitValues } from './filter-values.ts'

const DEFAULT_LIMIT = 25
const MAX_LIMIT = 1000

/** The keys by which Glance sorts. */
const sortFields = {
  name: 'name',
  status: 'status',
  container_format: 'containerFormat',
  disk_format: 'diskFormat',
  size: 'size',
  id: 'id',
  created_at: 'createdAt',
  updated_at: 'updatedAt',
} as const satisfies Record<string, SortKey['field']>

const bad = (problem: string): never => {
  throw new ServiceError('invalid-request', problem)
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }
type Draft = Mutable<ListRequest> & { conditions: ((image: ImageRecord) => boolean)[] }
type Filter = (draft: Draft, value: string, name: string) => void

const multiple =
  (field: 'ids' | 'names' | 'statuses' | 'diskFormats' | 'containerFormats'): Filter =>
  (draft, value) => {
    const { operator, operand } = splitOperator(value)
    if (operator !== 'eq' && operator !== 'in')
      bad(`there is no operator "${operator.slice(0, 40)}" here: a value, in:a,b or eq:a`)
    const values = operator === 'in' ? splitValues(operand) : [operand]
    if (field === 'statuses')
      draft.statuses = values as ImageStatus[] // an unknown state is one that no image has
    else draft[field] = field === 'ids' ? values.map((id) => id.toLowerCase()) : values
  }
const time =
  (field: TimeCondition['field']): Filter =>
  (draft, value, name) => {
    const { operator, operand } = splitOperator(value)
    if (!/^(gt|gte|lt|lte|eq|neq)$/.test(operator))
      bad(`there is no operator "${operator.slice(0, 40)}" for ${name}: gt, gte, lt, lte, eq, neq`)
    const ms = parseIsoTime(operand) ?? bad(`${name} takes a time in ISO 8601, as gt:2026-11-21T09:00:00Z`)
    draft.times = [...(draft.times ?? []), { field, op: operator as TimeCondition['op'], value: ms }]
  }
const whole = (value: string, name: string): number =>
  /^\s*[+-]?\d{1,15}\s*$/.test(value) ? Number(value) : bad(`${name} takes a whole number`)
const yesOrNo = (value: string, name: string): boolean =>
  value === 'true' || value === 'false' ? value === 'true' : bad(`${name} takes true or false`)

/** A filter that no index answers. */
const slow =
  (holds: (image: ImageRecord, value: string, name: string) => boolean): Filter =>
  (draft, value, name) => {
    draft.conditions.push((image) => holds(image, value, name))
  }
const range =
  (field: 'virtualSize' | 'minRam' | 'minDisk', end: 'min' | 'max'): Filter =>
  (draft, value, name) => {
    const bound = whole(value, name)
    draft.conditions.push((image) => {
      const number = image[field]
      return number !== null && (end === 'min' ? number >= bound : number <= bound)
    })
  }

const filters: Readonly<Record<string, Filter>> = {
  id: multiple('ids'),
  name: multiple('names'),
  status: multiple('statuses'),
  disk_format: multiple('diskFormats'),
  container_format: multiple('containerFormats'),
  created_at: time('createdAt'),
  updated_at: time('updatedAt'),
  visibility: (draft, value) => {
    if (value === '') return
    if (!/^(community|public|private|shared|all)$/.test(value)) bad('visibility takes community, public, private, shared or all')
    draft.visibility = value as NonNullable<ListRequest['visibility']>
  },
  member_status: (draft, value) => {
    if (!/^(pending|accepted|rejected|all)$/.test(value)) bad('member_status takes pending, accepted, rejected or all')
    draft.memberStatus = value as NonNullable<ListRequest['memberStatus']>
  },
  owner: (draft, value) => {
    draft.owner = value
  },
  os_hidden: (draft, value, name) => {
    draft.hidden = yesOrNo(value.toLowerCase(), name)
  },
  protected: (draft, value, name) => {
    draft.protected = yesOrNo(value, name)
  },
  checksum: (draft, value) => {
    draft.checksum = value
  },
  os_hash_value: (draft, value) => {
    draft.hashValue = value
  },
  min_disk: (draft, value, name) => {
    draft.minDisk = whole(value, name)
  },
  min_ram: (draft, value, name) => {
    draft.minRam = whole(value, name)
  },
  size: (draft, value, name) => {
    draft.sizeMin = whole(value, name)
    draft.sizeMax = draft.sizeMin
  },
  size_min: (draft, value, name) => {
    draft.sizeMin = whole(value, name)
  },
  size_max: (draft, value, name) => {
    draft.sizeMax = whole(value, name)
  },
  tag: (draft, value) => {
    draft.tags = [...(draft.tags ?? []), value.trim()]
  },
  limit: (draft, value) => {
    const limit = whole(value, 'limit')
    if (limit < 0) bad('limit takes a number that is not negative')
    draft.limit = Math.min(limit, MAX_LIMIT)
  },
  marker: (draft, value) => {
    draft.marker = value.toLowerCase()
  },
  'changes-since': () => bad('the filter changes-since is gone since version 2: use updated_at=gte:…'),
  deleted: () => {}, // Glance shows what is not deleted, whatever is asked for
  os_hash_algo: slow((image, value) => image.hashAlgo === value),
  virtual_size: slow((image, value, name) => image.virtualSize === whole(value, name)),
  virtual_size_min: range('virtualSize', 'min'),
  virtual_size_max: range('virtualSize', 'max'),
  min_ram_min: range('minRam', 'min'),
  min_ram_max: range('minRam', 'max'),
  min_disk_min: range('minDisk', 'min'),
  min_disk_max: range('minDisk', 'max'),
}
const sorting: ReadonlySet<string> = new Set(['sort', 'sort_key', 'sort_dir'])

/**
 * What a list request asks for. Any name that is not known is the name of a custom property.
 * @throws ServiceError `invalid-request`
 */
export function listRequestFrom(query: URLSearchParams): ListRequest {
  const draft: Draft = { limit: DEFAULT_LIMIT, conditions: [] }
  const properties: [string, string][] = []
  for (const [name, value] of query) {
    if (sorting.has(name)) continue
    if (Object.hasOwn(filters, name)) filters[name]?.(draft, value, name)
    else properties.push([name, value])
  }
  const { conditions, ...request } = draft
  const sort = sortFrom(query)
  return {
    ...request,
    ...(properties.length > 0 ? { properties: Object.fromEntries(properties) } : {}),
    ...(sort ? { sort } : {}),
    ...(conditions.length > 0 ? { where: (image: ImageRecord) => conditions.every((holds) => holds(image)) } : {}),
  }
}

type Direction = SortKey['direction']

function sortFrom(query: URLSearchParams): readonly SortKey[] | undefined {
  const [sort, keys, directions] = [query.getAll('sort').at(-1), query.getAll('sort_key'), query.getAll('sort_dir')]
  if (sort !== undefined) {
    if (keys.length > 0 || directions.length > 0)
      bad('sort cannot be combined with sort_key and sort_dir: use one of the two forms')
    const pairs = sort
      .trim()
      .split(',')
      .map((part) => part.split(':', 2))
    return withTies(
      pairs.map(([key = '', direction]) => sortKey(key, direction || 'desc')),
      pairs.length === 1 ? pairs[0]?.[1] : undefined,
    )
  }
  if (keys.length === 0 && directions.length === 0) return undefined
  if (directions.length > 1 && directions.length !== keys.length) bad('as many sort_dir as sort_key, or one for all of them')
  const named = keys.length === 0 ? ['created_at'] : keys
  return withTies(
    named.map((key, at) => sortKey(key, directions[at] ?? directions[0] ?? 'desc')),
    directions.length === 1 ? directions[0] : undefined,
  )
}

function sortKey(key: string, direction: string): SortKey {
  const name = key.trim()
  if (!Object.hasOwn(sortFields, name))
    bad(`the list cannot be sorted by "${name.slice(0, 40)}": by ${Object.keys(sortFields).join(', ')}`)
  return { field: sortFields[name as keyof typeof sortFields], direction: directionFrom(direction) }
}
function directionFrom(text: string): Direction {
  const direction = text.trim()
  return direction === 'asc' || direction === 'desc' ? direction : bad('a sort direction is asc or desc')
}

/** Images that are alike in every key stand by creation, then id: downwards, unless one direction was given for all keys. */
function withTies(keys: readonly SortKey[], only: string | undefined): SortKey[] {
  const direction = only ? directionFrom(only) : 'desc'
  const missing = (['createdAt', 'id'] as const).filter((field) => !keys.some((key) => key.field === field))
  return [...keys, ...missing.map((field) => ({ field, direction }))]
}

/** The parameters again, without the marker. */
export function queryAgain(query: URLSearchParams): string {
  const pairs: [string, string][] = [...query].filter(([name]) => name !== 'marker')
  return pairs.length === 0 ? '' : `?${new URLSearchParams(pairs)}`
}

/** @param again what `queryAgain` gave @param next an image id */
export const withMarker = (again: string, next: string): string => `${again === '' ? '?' : `${again}&`}marker=${next}`
