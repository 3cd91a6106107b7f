import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { authorizeService } from './policy.ts'
import type { VolumePorts } from './ports.ts'
import type { SnapshotRecord, VolumeRecord } from './records.ts'
import { snapshots, volumes } from './store.ts'

export interface ListQuery<T> {
  /** Of every project, or of the one that is named: for administrators. */
  readonly allProjects: boolean
  readonly projectId?: string
  readonly conditions: readonly ((item: T) => boolean)[]
  readonly sort: readonly { readonly key: SortKey; readonly direction: 'asc' | 'desc' }[]
  /** The list goes on after this one. */
  readonly marker?: string
  readonly offset: number
  readonly limit: number
}
export interface Listed<T> {
  readonly items: readonly T[]
  readonly isCut: boolean
  /** All that fit, not only those of the page. */
  readonly count: number
}

type Item = VolumeRecord | SnapshotRecord
/** Cinder's keys, as far as volumes here have them. */
const sortValues = {
  id: ({ id }) => id,
  name: ({ name }) => name ?? '',
  display_name: ({ name }) => name ?? '',
  size: ({ sizeGiB }) => sizeGiB,
  status: ({ status }) => status,
  bootable: (item) => ('isBootable' in item && item.isBootable ? 1 : 0),
  availability_zone: () => '',
  created_at: ({ createdAt }) => createdAt,
  updated_at: ({ updatedAt }) => updatedAt,
} as const satisfies Record<string, (item: Item) => string | number>
export type SortKey = keyof typeof sortValues
export const isSortKey = (key: string): key is SortKey => Object.hasOwn(sortValues, key)

type Ports = Pick<VolumePorts, 'catalog'>

/** `GET /volumes`: the newest first, where nothing else is asked for. @throws ServiceError `denied`; `not-found` for a marker that the caller cannot see */
export const listVolumes = (ports: Ports, caller: Caller, query: ListQuery<VolumeRecord>): Promise<Listed<VolumeRecord>> =>
  list(ports, caller, query, volumes)

/** `GET /snapshots`. @throws as `listVolumes` */
export const listSnapshots = (ports: Ports, caller: Caller, query: ListQuery<SnapshotRecord>): Promise<Listed<SnapshotRecord>> =>
  list(ports, caller, query, snapshots)

async function list<T extends Item>(
  { catalog: { documents } }: Ports,
  caller: Caller,
  { allProjects, conditions, sort, marker, offset, limit, ...query }: ListQuery<T>,
  store: {
    readonly list: (docs: typeof documents) => Promise<readonly T[]>
    readonly ofProject: (docs: typeof documents, projectId: string) => Promise<readonly T[]>
  },
): Promise<Listed<T>> {
  authorizeService(caller, allProjects ? 'list-all-projects' : 'list')
  const projectId = allProjects ? query.projectId : caller.projectId
  const visible =
    projectId === undefined ? await store.list(documents) : projectId === null ? [] : await store.ofProject(documents, projectId)
  const fitting = [...visible].sort(inOrderOf(sort)).filter((item) => conditions.every((holds) => holds(item)))
  const after = marker === undefined ? -1 : fitting.findIndex(({ id }) => id === marker)
  if (marker !== undefined && after < 0) throw new ServiceError('not-found', `marker [${marker.slice(0, 80)}] not found`)
  const rest = fitting.slice(after + 1 + offset)
  return { items: rest.slice(0, limit), isCut: rest.length > limit, count: fitting.length }
}

/** What is alike in every key stands by creation, then id, newest first. */
function inOrderOf(sort: ListQuery<never>['sort']): (a: Item, b: Item) => number {
  const keys: ListQuery<never>['sort'] = [...sort, { key: 'created_at', direction: 'desc' }, { key: 'id', direction: 'desc' }]
  return (a, b) => {
    for (const { key, direction } of keys) {
      const [left, right] = [sortValues[key](a), sortValues[key](b)]
      if (left !== right) return left < right === (direction === 'asc') ? -1 : 1
    }
    return 0
  }
}
