import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import type { DocumentReader, DocumentWriter } from '../../store/catalog/catalog.ts'
import { findInstance } from '../find-instance.ts'
import type { InstanceVerb } from '../policy.ts'
import type { InstancePorts } from '../ports.ts'
import type { InstanceRecord } from '../records.ts'
import { instanceActions } from '../store.ts'

/** What was done to an instance, by whom, and what became of it. */
export interface InstanceAction {
  readonly instanceId: string
  /** Of the request that asked for it. */
  readonly requestId: string
  /** Nova's word: `create`, `reboot` …; `nova/compute/instance_actions.py`. */
  readonly action: string
  /** What did it, in Nova's words: `compute_reboot_instance`. */
  readonly event: string
  readonly projectId: string | null
  readonly userId: string
  readonly startedAt: number
  /** Null: it is being done. */
  readonly finishedAt: number | null
  /** Why it failed, for its owner; null: it did not. */
  readonly failure: string | null
  /** What there is to tell of how it went. */
  readonly outcome?: string
}

/** Those of an instance that are kept: the newest. */
const MAX_KEPT = 100

type Name = readonly [action: string, event: string]
/** What of the policy's verbs is an action. What only notes something about an instance is none, as in Nova. */
const actionOf: Partial<Readonly<Record<InstanceVerb | 'create', Name>>> = {
  create: ['create', 'compute__do_build_and_run_instance'],
  start: ['start', 'compute_start_instance'],
  stop: ['stop', 'compute_stop_instance'],
  'soft-reboot': ['reboot', 'compute_reboot_instance'],
  'hard-reboot': ['reboot', 'compute_reboot_instance'],
  pause: ['pause', 'compute_pause_instance'],
  unpause: ['unpause', 'compute_unpause_instance'],
  lock: ['lock', 'api_lock'],
  unlock: ['unlock', 'api_unlock'],
  snapshot: ['createImage', 'compute_snapshot_instance'],
  migrate: ['live-migration', 'conductor_live_migrate_instance'],
  rebuild: ['rebuild', 'compute_rebuild_instance'],
  'attach-volume': ['attach_volume', 'compute_attach_volume'],
  'detach-volume': ['detach_volume', 'compute_detach_volume'],
  delete: ['delete', 'compute_terminate_instance'],
}

/**
 * Notes that it begins, in the transaction that begins it; where no task goes on after that, it is done. Those before the newest
 * hundred are forgotten.
 */
export async function beginAction(
  documents: DocumentReader & DocumentWriter,
  caller: Pick<Caller, 'userId' | 'projectId' | 'requestId'>,
  { id, taskState }: Pick<InstanceRecord, 'id' | 'taskState'>,
  verb: InstanceVerb | 'create',
  now: number,
): Promise<void> {
  const name = actionOf[verb]
  if (!name) return
  const [action, event] = name
  const { requestId, projectId, userId } = caller
  const finishedAt = taskState === null ? now : null
  const there = await instanceActions.of(documents, id)
  for (const old of there.slice(MAX_KEPT - 1)) await instanceActions.delete(documents, old)
  const begun = { instanceId: id, requestId, action, event, projectId, userId, startedAt: now, finishedAt, failure: null }
  await instanceActions.put(documents, begun)
}

/**
 * Notes the end of what was done when an instance has a task no more, in the transaction that records it. What was cut short by
 * another action ends with it.
 */
export async function endActions(
  documents: DocumentReader & DocumentWriter,
  before: InstanceRecord,
  after: InstanceRecord,
  now: number,
): Promise<void> {
  if (before.taskState === null || after.taskState !== null) return
  const failure = after.fault !== null && after.fault !== before.fault ? after.fault.message : null
  const open = (await instanceActions.of(documents, after.id)).filter(({ finishedAt }) => finishedAt === null)
  for (const [index, action] of open.entries()) {
    const ended = index === 0 ? failure : 'it was cut short by what came after it'
    await instanceActions.put(documents, { ...action, finishedAt: now, failure: ended, ...outcomeOf(action, after) })
  }
}

function outcomeOf({ action, startedAt }: InstanceAction, { migration }: InstanceRecord): Pick<InstanceAction, 'outcome'> {
  if (action !== 'live-migration' || !migration || migration.at < startedAt) return {}
  const { downtimeMs } = migration
  const still = downtimeMs === null ? '' : `; the guest stood still for ${downtimeMs} ms`
  return { outcome: `moved to another host${still}` }
}

/** The newest first. @throws ServiceError `not-found`, `denied` */
export async function listActions(
  { catalog }: Pick<InstancePorts, 'catalog'>,
  caller: Caller,
  id: string,
): Promise<readonly InstanceAction[]> {
  const instance = await findInstance(catalog.documents, caller, id, 'show')
  return instanceActions.of(catalog.documents, instance.id)
}

/** @throws ServiceError as `listActions`; `not-found` */
export async function showAction(
  ports: Pick<InstancePorts, 'catalog'>,
  caller: Caller,
  id: string,
  requestId: string,
): Promise<InstanceAction> {
  const found = (await listActions(ports, caller, id)).find((action) => action.requestId === requestId)
  if (found) return found
  throw new ServiceError('not-found', `Action for request_id ${requestId.slice(0, 80)} on instance ${id} not found`)
}
