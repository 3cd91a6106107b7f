import { ServiceError } from '../../../base/errors.ts'
import { isSortKey, type ListQuery } from '../../../volumes/list.ts'
import type { SnapshotRecord, VolumeRecord } from '../../../volumes/records.ts'
import { isYes, limitFrom } from '../paging.ts'
import { msFrom } from '../times.ts'
import type { Call } from './route.ts'

type Item = VolumeRecord | SnapshotRecord
type Condition<T> = (item: T) => boolean
type Filter<T> = (value: string) => Condition<T>

/** @throws ServiceError `invalid-request` */
export const volumeQueryFrom = (call: Call): ListQuery<VolumeRecord> =>
  queryFrom<VolumeRecord>(call, {
    bootable: (value) => (volume) => volume.isBootable === isYes(value),
    glance_metadata: pairs(({ imageMetadata }) => imageMetadata ?? {}),
  })

/** @throws ServiceError `invalid-request` */
export const snapshotQueryFrom = (call: Call): ListQuery<SnapshotRecord> =>
  queryFrom<SnapshotRecord>(call, { volume_id: (value) => (snapshot) => snapshot.volumeId === value })

/** What is no filter of Cinder's is left alone, as Cinder does. */
function queryFrom<T extends Item>(call: Call, own: Readonly<Record<string, Filter<T>>>): ListQuery<T> {
  const { query, caller } = call
  const filters: Readonly<Record<string, Filter<T>>> = { ...common, ...(call.minor >= 60 ? times : {}), ...own }
  const like = call.minor >= 31 ? query.get('name~') : null
  const allProjects = caller.isAdmin && query.has('all_tenants') && isYes(query.get('all_tenants') || 'true')
  const projectId = query.get('project_id')
  const marker = query.getAll('marker').at(-1)
  return {
    allProjects,
    ...(projectId === null ? {} : { projectId }),
    conditions: [
      ...[...query].flatMap(([name, value]) => (Object.hasOwn(filters, name) ? [filters[name]!(value)] : [])),
      ...(like === null ? [] : [({ name }: T) => (name ?? '').includes(like)]),
    ],
    sort: sortFrom(query),
    ...(marker === undefined ? {} : { marker: marker.toLowerCase() }),
    offset: offsetFrom(query),
    limit: limitFrom(query),
  }
}

const common: Readonly<Record<string, Filter<Item>>> = {
  id:
    (value) =>
    ({ id }) =>
      id === value.toLowerCase(),
  name:
    (value) =>
    ({ name }) =>
      (name ?? '') === value,
  display_name:
    (value) =>
    ({ name }) =>
      (name ?? '') === value,
  status:
    (value) =>
    ({ status }) =>
      status === value.toLowerCase(),
  size:
    (value) =>
    ({ sizeGiB }) =>
      String(sizeGiB) === value,
  user_id:
    (value) =>
    ({ userId }) =>
      userId === value,
  metadata: pairs(({ metadata }) => metadata),
}
const times: Readonly<Record<string, Filter<Item>>> = {
  created_at: time(({ createdAt }) => createdAt, 'created_at'),
  updated_at: time(({ updatedAt }) => updatedAt, 'updated_at'),
}

/** `{'a': 'b'}`: as Python shows a dictionary, which is what clients send. */
function pairs<T extends Item>(of: (item: T) => Readonly<Record<string, string>>): Filter<T> {
  return (value) => {
    const wanted = [...value.matchAll(/u?(['"])(.*?)\1\s*:\s*u?(['"])(.*?)\3\s*(?=[,}])/g)].map(
      ([, , name, , text]) => [name!, text!] as const,
    )
    if (wanted.length === 0 && value.replace(/[\s{}]/g, '') !== '') {
      throw new ServiceError('invalid-request', `metadata: ${JSON.stringify(value.slice(0, 80))} is not as {'name': 'value'}`)
    }
    return (item) => {
      const held = of(item)
      return wanted.every(([name, text]) => Object.hasOwn(held, name) && held[name] === text)
    }
  }
}

const compare: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  gt: (a, b) => a > b,
  gte: (a, b) => a >= b,
  lt: (a, b) => a < b,
  lte: (a, b) => a <= b,
  eq: (a, b) => a === b,
  neq: (a, b) => a !== b,
}
/** `gt:2026-01-01T00:00:00`, several with commas between; a bare time must be met. */
function time(of: (item: Item) => number, name: string): Filter<Item> {
  return (value) => {
    const conditions = value.split(',').map((text) => {
      const [, operator = 'eq', at = text] = /^(gte?|lte?|n?eq):(.*)$/.exec(text) ?? []
      const ms = msFrom(at, name)
      return (item: Item) => compare[operator]!(of(item), ms)
    })
    return (item) => conditions.every((holds) => holds(item))
  }
}

/** `sort=name:asc,size`, or the older `sort_key` and `sort_dir`. */
function sortFrom(query: URLSearchParams): ListQuery<Item>['sort'] {
  const words =
    query.get('sort')?.split(',') ?? query.getAll('sort_key').map((key) => `${key}:${query.get('sort_dir') ?? 'desc'}`)
  return words.filter(Boolean).map((word) => {
    const [key = '', direction = 'desc'] = word.trim().split(':')
    if (!isSortKey(key) || (direction !== 'asc' && direction !== 'desc')) {
      throw new ServiceError(
        'invalid-request',
        `Invalid input received: nothing is sorted by ${JSON.stringify(word.slice(0, 80))}`,
      )
    }
    return { key, direction }
  })
}

function offsetFrom(query: URLSearchParams): number {
  const text = query.get('offset') ?? '0'
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new ServiceError(
    'invalid-request',
    `Invalid input received: offset ${JSON.stringify(text.slice(0, 40))} is no whole number`,
  )
}
