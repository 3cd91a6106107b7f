import { ServiceError } from '../../../base/errors.ts'
import { hostNameOf } from '../../../instances/hosts.ts'
import { type InstanceQuery, type InstanceSort, isInstanceSortKey } from '../../../instances/list/list-instances.ts'
import { namePattern } from '../../../instances/list/name-pattern.ts'
import type { InstanceRecord } from '../../../instances/records.ts'
import { knownStatuses, statusOf } from '../../../instances/states.ts'
import { isYes, limitFrom, refuseUnknown } from '../paging.ts'
import { msFrom } from '../times.ts'
import type { Call } from './route.ts'
import { addressesOf, ZONE } from './server-json.ts'

type Condition = (instance: InstanceRecord) => boolean
/** @returns null: the filter means nothing in this version */
type Filter = (values: readonly string[], call: Call) => Condition | null

const equals =
  (of: (instance: InstanceRecord) => string | number | null): Filter =>
  (values) =>
  (instance) =>
    values.includes(String(of(instance) ?? ''))
const matches =
  (of: (instance: InstanceRecord) => string): Filter =>
  ([pattern = '']) => {
    const fits = namePattern(pattern)
    return (instance) => fits(of(instance))
  }
const since =
  (minor: number, filter: Filter): Filter =>
  (values, call) =>
    call.minor >= minor ? filter(values, call) : null

const tags =
  (holds: (wanted: readonly string[], tags: readonly string[]) => boolean): Filter =>
  ([text = '']) =>
  (instance) =>
    holds(text.split(','), instance.tags)
const all = (wanted: readonly string[], tags: readonly string[]) => wanted.every((tag) => tags.includes(tag))
const any = (wanted: readonly string[], tags: readonly string[]) => wanted.some((tag) => tags.includes(tag))

/** Everybody's. */
const filters: Readonly<Record<string, Filter>> = {
  name: matches(({ name }) => name),
  status,
  image: (values) => (instance) => values.some((value) => value.split('/').at(-1) === instance.imageId),
  flavor: (values) => (instance) => values.some((value) => value.split('/').at(-1) === instance.flavor.id),
  ip: ([pattern = '']) => {
    const fits = namePattern(pattern)
    return (instance) => Object.values(addressesOf(instance)).some((list) => list.some(({ addr }) => fits(addr)))
  },
  ip6: () => () => false, // no guest here has an address of version 6 that anybody could know
  reservation_id: equals(({ reservationId }) => reservationId),
  uuid: equals(({ id }) => id),
  'changes-since': ([text = '']) => {
    const ms = msFrom(text, 'changes-since')
    return ({ updatedAt }) => updatedAt >= ms
  },
  'changes-before': since(66, ([text = '']) => {
    const ms = msFrom(text, 'changes-before')
    return ({ updatedAt }) => updatedAt <= ms
  }),
  tags: since(26, tags(all)),
  'tags-any': since(26, tags(any)),
  'not-tags': since(
    26,
    tags((wanted, found) => !all(wanted, found)),
  ),
  'not-tags-any': since(
    26,
    tags((wanted, found) => !any(wanted, found)),
  ),
  locked: since(
    73,
    ([text = '']) =>
      (instance) =>
        (instance.lock !== null) === isYes(text),
  ),
}
/** Those of administrators; from others they are left alone, as in Nova. */
const administratorsFilters: Readonly<Record<string, Filter>> = {
  host:
    (values, { ports }) =>
    (instance) =>
      values.includes(hostNameOf(ports, instance)),
  node:
    (values, { ports }) =>
    (instance) =>
      values.includes(hostNameOf(ports, instance)),
  user_id: equals(({ userId }) => userId),
  key_name: equals(({ key }) => key?.name ?? null),
  vm_state: equals(({ vmState }) => vmState),
  task_state: equals(({ taskState }) => taskState),
  hostname: matches(({ hostname }) => hostname),
  display_name: matches(({ name }) => name),
  description: matches(({ description }) => description ?? ''),
  display_description: matches(({ description }) => description ?? ''),
  availability_zone: (values) => () => values.includes(ZONE),
  launch_index: equals(({ launchIndex }) => launchIndex),
  deleted:
    ([text = '']) =>
    () =>
      !isYes(text), // what is deleted is gone
}
/** What is no filter, and what names one that fits every instance here. */
const others = [
  ...['limit', 'marker', 'sort_key', 'sort_dir', 'all_tenants', 'project_id', 'tenant_id', 'soft_deleted', 'config_drive'],
  ...['power_state', 'progress', 'root_device_name', 'kernel_id', 'ramdisk_id', 'terminated_at', 'launched_at', 'created_at'],
  ...['updated_at', 'access_ip_v4', 'access_ip_v6', 'auto_disk_config', 'locked_by', 'metadata', 'vcpus', 'memory_mb'],
]

/** What a list request asks for. @throws ServiceError `invalid-request` */
export function serverQueryFrom(call: Call): InstanceQuery {
  const { query, caller, minor } = call
  const known = caller.isAdmin ? { ...filters, ...administratorsFilters } : filters
  refuseUnknown(query, minor, [...Object.keys(filters), ...Object.keys(administratorsFilters), ...others])
  const conditions = [...new Set(query.keys())].flatMap((name) => {
    const condition = Object.hasOwn(known, name) ? known[name]?.(query.getAll(name), call) : null
    return condition ? [condition] : []
  })
  const allProjects = query.get('all_tenants')
  const projectId = query.get('project_id') ?? query.get('tenant_id')
  const marker = query.getAll('marker').at(-1)
  return {
    allProjects: allProjects !== null && (allProjects === '' || isYes(allProjects)),
    ...(projectId === null ? {} : { projectId }),
    conditions,
    sort: sortFrom(query),
    ...(marker === undefined ? {} : { marker: marker.toLowerCase() }),
    limit: limitFrom(query),
  }
}

function status(values: readonly string[], { minor }: Call): Condition {
  const wanted = values.map((value) => value.toUpperCase())
  const unknown = wanted.find((value) => !knownStatuses.has(value))
  if (unknown !== undefined && minor >= 38) {
    throw new ServiceError('invalid-request', `Invalid status value: ${JSON.stringify(unknown.slice(0, 40))}`)
  }
  return (instance) => wanted.includes(statusOf(instance))
}

function sortFrom(query: URLSearchParams): readonly InstanceSort[] {
  const directions = query.getAll('sort_dir')
  return query.getAll('sort_key').map((key, at) => {
    const direction = directions[at] ?? 'desc'
    if (!isInstanceSortKey(key) || (direction !== 'asc' && direction !== 'desc')) {
      throw new ServiceError(
        'invalid-request',
        `Invalid input for query parameters sort_key, sort_dir. Value: ${key.slice(0, 40)} ${direction.slice(0, 40)}`,
      )
    }
    return { key, direction }
  })
}
