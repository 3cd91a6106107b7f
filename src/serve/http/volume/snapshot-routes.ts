import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { listSnapshots } from '../../../volumes/list.ts'
import type { SnapshotRecord } from '../../../volumes/records.ts'
import { createSnapshot } from '../../../volumes/snapshots/create-snapshot.ts'
import { deleteSnapshot } from '../../../volumes/snapshots/delete-snapshot.ts'
import { showSnapshot } from '../../../volumes/snapshots/find-snapshot.ts'
import { resetSnapshotStatus, resettableSnapshotStatuses, updateSnapshot } from '../../../volumes/snapshots/update-snapshot.ts'
import { bodyOf } from '../json-body.ts'
import { isYes, nextLink } from '../paging.ts'
import { isoMicroseconds } from '../times.ts'
import { snapshotQueryFrom } from './list-query.ts'
import { textFrom } from './new-volume.ts'
import { accepted, type Call, ok, part, type Route } from './route.ts'
import { description, name, optionalMetadata, yesOrNo } from './schemas.ts'
import { type Act, actOn } from './volume-actions.ts'
import { changesFrom } from './volume-routes.ts'

const names = {
  name: Type.Optional(name),
  display_name: Type.Optional(name),
  description: Type.Optional(description),
  display_description: Type.Optional(description),
  metadata: optionalMetadata,
}
const force = Type.Optional(Type.Union([yesOrNo, Type.Null()]))
const createBody = bodyOf(
  Type.Object({ snapshot: Type.Object({ ...names, volume_id: Type.String({ minLength: 1, maxLength: 255 }), force }) }),
)
const updateBody = bodyOf(Type.Object({ snapshot: Type.Object(names) }))
const resetBody = bodyOf(
  Type.Object({
    'os-reset_status': Type.Object({
      status: Type.Union(
        resettableSnapshotStatuses.map((status) => Type.Literal(status)),
        {
          description: `one of ${resettableSnapshotStatuses.join(', ')}: the others are for work that goes on`,
        },
      ),
    }),
  }),
)
type ResettableStatus = (typeof resettableSnapshotStatuses)[number]

/** From this version on, whether a volume is attached makes no difference, and nobody says "force". */
const IN_USE_SINCE = 66

const acts: Readonly<Record<string, Act>> = {
  async 'os-reset_status'({ ports, caller, body }, id) {
    await resetSnapshotStatus(ports, caller, id, resetBody(body)['os-reset_status'].status as ResettableStatus)
    return accepted
  },
  async 'os-force_delete'({ ports, caller }, id) {
    await deleteSnapshot(ports, caller, id, { force: true })
    return accepted
  },
}
export const snapshotActionNames: readonly string[] = Object.keys(acts)

export const snapshotRoutes: readonly Route[] = [
  { method: 'GET', path: '/snapshots', handle: (call) => list(call, '/snapshots', snapshotSummary) },
  { method: 'GET', path: '/snapshots/detail', handle: (call) => list(call, '/snapshots/detail', snapshotJson) },
  { method: 'POST', path: '/snapshots', handle: create },
  {
    method: 'GET',
    path: '/snapshots/:id',
    handle: async (call) => ok({ snapshot: snapshotJson(call, await showSnapshot(call.ports, call.caller, part(call, 'id'))) }),
  },
  {
    method: 'PUT',
    path: '/snapshots/:id',
    async handle(call) {
      const changes = changesFrom(updateBody(call.body).snapshot)
      return ok({ snapshot: snapshotJson(call, await updateSnapshot(call.ports, call.caller, part(call, 'id'), changes)) })
    },
  },
  {
    method: 'DELETE',
    path: '/snapshots/:id',
    async handle(call) {
      await deleteSnapshot(call.ports, call.caller, part(call, 'id'))
      return accepted
    },
  },
  { method: 'POST', path: '/snapshots/:id/action', handle: (call) => actOn(call, acts, new Set(['os-update_snapshot_status'])) },
]

async function create(call: Call) {
  const { volume_id: volumeId, force, ...named } = createBody(call.body).snapshot
  if (call.minor >= IN_USE_SINCE && force !== undefined && !isYes(String(force))) {
    const message = `Since version 3.${IN_USE_SINCE} a snapshot is taken whether the volume is in use or not: leave "force" out`
    throw new ServiceError('invalid-request', message)
  }
  const snapshot = await createSnapshot(call.ports, call.caller, {
    volumeId,
    name: textFrom(named.name ?? named.display_name),
    description: textFrom(named.description ?? named.display_description),
    metadata: named.metadata ?? {},
    mayBeInUse: call.minor >= IN_USE_SINCE || isYes(String(force ?? false)),
  })
  return { status: 202, body: { snapshot: snapshotSummary(call, snapshot) } }
}

async function list(call: Call, path: string, show: (call: Call, snapshot: SnapshotRecord) => object) {
  const { items, isCut, count } = await listSnapshots(call.ports, call.caller, snapshotQueryFrom(call))
  const last = isCut ? items.at(-1) : undefined
  return ok({
    snapshots: items.map((snapshot) => show(call, snapshot)),
    ...(last ? { snapshots_links: [nextLink(call.base + path, call.query, last.id)] } : {}),
    ...(call.minor >= 45 && isYes(call.query.get('with_count') ?? '') ? { count } : {}),
  })
}

const snapshotSummary = ({ minor }: Call, snapshot: SnapshotRecord) => ({
  id: snapshot.id,
  name: snapshot.name ?? '',
  description: snapshot.description,
  volume_id: snapshot.volumeId,
  status: snapshot.status,
  size: snapshot.sizeGiB,
  metadata: snapshot.metadata,
  created_at: isoMicroseconds(snapshot.createdAt),
  updated_at: isoMicroseconds(snapshot.updatedAt),
  ...(minor >= 14 ? { group_snapshot_id: null } : {}),
  ...(minor >= 41 ? { user_id: snapshot.userId } : {}),
  ...(minor >= 65 ? { consumes_quota: true } : {}),
})

const snapshotJson = (call: Call, snapshot: SnapshotRecord) => ({
  ...snapshotSummary(call, snapshot),
  'os-extended-snapshot-attributes:progress': snapshot.status === 'available' ? '100%' : '0%',
  'os-extended-snapshot-attributes:project_id': snapshot.projectId,
})
