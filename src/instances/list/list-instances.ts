import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { authorizeService } from '../policy.ts'
import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord } from '../records.ts'
import { statusOf } from '../states.ts'
import { instances } from '../store.ts'

export interface InstanceQuery {
  /** Of every project, or of the one that is named: for administrators. */
  readonly allProjects?: boolean
  readonly projectId?: string
  readonly conditions: readonly ((instance: InstanceRecord) => boolean)[]
  readonly sort: readonly InstanceSort[]
  /** The list goes on after this instance. */
  readonly marker?: string
  readonly limit: number
}
export interface InstanceSort {
  readonly key: InstanceSortKey
  readonly direction: 'asc' | 'desc'
}

/** Nova's keys, as far as instances here have them. */
const sortValues = {
  created_at: ({ createdAt }) => createdAt,
  updated_at: ({ updatedAt }) => updatedAt,
  launched_at: ({ launchedAt }) => launchedAt ?? 0,
  uuid: ({ id }) => id,
  display_name: ({ name }) => name,
  display_description: ({ description }) => description ?? '',
  hostname: ({ hostname }) => hostname,
  image_ref: ({ imageId }) => imageId,
  instance_type_id: ({ flavor }) => flavor.id,
  key_name: ({ key }) => key?.name ?? '',
  locked: ({ lock }) => (lock ? 1 : 0),
  power_state: ({ power }) => power ?? '',
  project_id: ({ projectId }) => projectId,
  root_device_name: () => '',
  task_state: ({ taskState }) => taskState ?? '',
  user_id: ({ userId }) => userId,
  vm_state: ({ vmState }) => vmState,
  launch_index: ({ launchIndex }) => launchIndex,
  status: (instance) => statusOf(instance),
} as const satisfies Record<string, (instance: InstanceRecord) => string | number>
export type InstanceSortKey = keyof typeof sortValues
export const isInstanceSortKey = (key: string): key is InstanceSortKey => Object.hasOwn(sortValues, key)

/**
 * `GET /servers`: the newest first, where nothing else is asked for.
 * @throws ServiceError `denied`; `invalid-request` for a marker that the caller cannot see
 */
export async function listInstances(
  { catalog }: Pick<InstancePorts, 'catalog'>,
  caller: Caller,
  query: InstanceQuery,
): Promise<{ readonly instances: readonly InstanceRecord[]; readonly isCut: boolean }> {
  const { allProjects = false, conditions, marker, limit } = query
  authorizeService(caller, allProjects ? 'list-all-projects' : 'list')
  const projectId = allProjects ? query.projectId : caller.projectId
  const { documents } = catalog
  const visible =
    projectId === undefined
      ? await instances.list(documents)
      : projectId === null
        ? []
        : await instances.ofProject(documents, projectId)
  const sorted = [...visible].sort(inOrderOf(query.sort))
  const after = marker === undefined ? -1 : sorted.findIndex(({ id }) => id === marker)
  if (marker !== undefined && after < 0) throw new ServiceError('invalid-request', `marker [${marker.slice(0, 80)}] not found`)
  const found = sorted.slice(after + 1).filter((instance) => conditions.every((holds) => holds(instance)))
  return { instances: found.slice(0, limit), isCut: found.length > limit }
}

/** What is alike in every key stands by creation, then id, newest first. */
function inOrderOf(sort: readonly InstanceSort[]): (a: InstanceRecord, b: InstanceRecord) => number {
  const keys: readonly InstanceSort[] = [...sort, { key: 'created_at', direction: 'desc' }, { key: 'uuid', direction: 'desc' }]
  return (a, b) => {
    for (const { key, direction } of keys) {
      const [left, right] = [sortValues[key](a), sortValues[key](b)]
      if (left !== right) return left < right === (direction === 'asc') ? -1 : 1
    }
    return 0
  }
}
