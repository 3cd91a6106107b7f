import { ServiceError } from '../../../base/errors.ts'
import { type InstanceAction, listActions, showAction } from '../../../instances/actions/actions.ts'
import { showInstance } from '../../../instances/find-instance.ts'
import { hostNameOf } from '../../../instances/hosts.ts'
import type { InstanceRecord } from '../../../instances/records.ts'
import { limitFrom, nextLink, refuseUnknown } from '../paging.ts'
import { isoMicroseconds, msFrom } from '../times.ts'
import { type Call, ok, part, type Route } from './route.ts'
import { hostIdOf } from './server-json.ts'

/** What was done to a server. Source: Nova's API reference, "Servers actions". */
export const actionLogRoutes: readonly Route[] = [
  { method: 'GET', path: '/servers/:id/os-instance-actions', handle: list },
  { method: 'GET', path: '/servers/:id/os-instance-actions/:request', handle: show },
]

/** The version that pages, and says when an action was last changed. */
const PAGING = 58
const CHANGES_BEFORE = 66

async function list(call: Call) {
  const { query, minor, base } = call
  const id = part(call, 'id')
  const all = await listActions(call.ports, call.caller, id)
  if (minor < PAGING) return ok({ instanceActions: all.map((action) => summary(action, minor)) })
  refuseUnknown(query, minor, ['limit', 'marker', 'changes-since', ...(minor >= CHANGES_BEFORE ? ['changes-before'] : [])])
  const found = all.slice(startOf(all, query.get('marker'))).filter(withinTime(call))
  const limit = limitFrom(query)
  const page = found.slice(0, limit)
  const last = page.at(-1)
  const links =
    found.length > page.length && last ? [nextLink(`${base}/servers/${id}/os-instance-actions`, query, last.requestId)] : null
  return ok({ instanceActions: page.map((action) => summary(action, minor)), ...(links ? { links } : {}) })
}

/** @throws ServiceError `invalid-request` for a marker that is none */
function startOf(all: readonly InstanceAction[], marker: string | null): number {
  if (marker === null) return 0
  const at = all.findIndex(({ requestId }) => requestId === marker)
  if (at < 0) throw new ServiceError('invalid-request', `marker [${marker.slice(0, 80)}] not found`)
  return at + 1
}

function withinTime({ query, minor }: Call): (action: InstanceAction) => boolean {
  const [since, before] = [query.get('changes-since'), minor >= CHANGES_BEFORE ? query.get('changes-before') : null]
  const from = since === null ? Number.NEGATIVE_INFINITY : msFrom(since, 'changes-since')
  const to = before === null ? Number.POSITIVE_INFINITY : msFrom(before, 'changes-before')
  return (action) => changedAt(action) >= from && changedAt(action) <= to
}
const changedAt = ({ startedAt, finishedAt }: InstanceAction): number => finishedAt ?? startedAt

async function show(call: Call) {
  const instance = await showInstance(call.ports, call.caller, part(call, 'id'))
  const action = await showAction(call.ports, call.caller, part(call, 'id'), part(call, 'request'))
  // until 2.51 the events were for administrators
  const events = call.minor >= 51 || call.caller.isAdmin ? { events: [event(call, action, instance)] } : {}
  return ok({ instanceAction: { ...summary(action, call.minor), ...events } })
}

const summary = (action: InstanceAction, minor: number) => ({
  action: action.action,
  instance_uuid: action.instanceId,
  request_id: action.requestId,
  user_id: action.userId,
  project_id: action.projectId,
  start_time: isoMicroseconds(action.startedAt),
  message: action.failure === null ? (action.outcome ?? null) : 'Error',
  ...(minor >= PAGING ? { updated_at: isoMicroseconds(changedAt(action)) } : {}),
})

function event({ ports, caller, minor }: Call, action: InstanceAction, instance: InstanceRecord) {
  const { event, startedAt, finishedAt, failure } = action
  const hostName = hostNameOf(ports, instance)
  return {
    event,
    start_time: isoMicroseconds(startedAt),
    finish_time: finishedAt === null ? null : isoMicroseconds(finishedAt),
    result: finishedAt === null ? null : failure === null ? 'Success' : 'Error',
    traceback: failure, // no stack of ours: what its owner is told
    ...(minor >= 62 ? { hostId: hostIdOf(instance.projectId, hostName), ...(caller.isAdmin ? { host: hostName } : {}) } : {}),
  }
}
