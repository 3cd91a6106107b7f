import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { type Least, type Rank, rankOf, suffices } from '../base/rank.ts'
import { type InstanceRecord, startsFromVolume, type VmState } from './records.ts'

/**
 * Who may do what to an instance: role × ownership × state × verb → a verdict. Every use case asks this table and nothing else.
 * The rules are Nova's with its secure defaults: a reader of the project looks, a member does all to what the project has, an
 * administrator to whatever there is.
 */
export type Verdict =
  | 'allow'
  /** The caller knows the instance and may not do this: 403. */
  | 'deny'
  /** The caller may do this, but not while the instance is in this state, or locked: 409. */
  | 'conflict'
  /** To this caller the instance does not exist: 404. */
  | 'hide'

export type Standing = 'owner' | 'stranger'

interface Rule {
  /** The least role that suffices in the project that owns the instance. */
  readonly least: Least
  readonly states: readonly VmState[]
  /** Whether it is done while something else is: what comes first is then ended, or does not matter. */
  readonly whileBusy: boolean
  /** Whether a lock keeps the owner from it. Administrators pass. */
  readonly keptByLock: boolean
  /** Takes an instance with a root disk of its own: one that starts from a volume has none. */
  readonly ownRoot?: true
  /** Takes an instance that once ran: there is a machine to do it to. */
  readonly afterLaunch?: true | undefined
}

const anyState: readonly VmState[] = ['building', 'active', 'paused', 'stopped', 'error']
const looks = { least: 'reader', states: anyState, whileBusy: true, keptByLock: false } as const
const notes = { least: 'member', states: anyState, whileBusy: true, keptByLock: false } as const
const acts = { least: 'member', whileBusy: false, keptByLock: true, afterLaunch: true } as const

export const instancePolicy = {
  show: looks,
  'console-log': notes,
  'serial-console': notes,
  update: notes,
  tag: notes,
  'change-metadata': { ...notes, keptByLock: true },
  delete: { ...notes, keptByLock: true },
  start: { ...acts, states: ['stopped'] },
  stop: { ...acts, states: ['active', 'paused', 'error'] },
  'soft-reboot': { ...acts, states: ['active'] },
  'hard-reboot': { ...acts, states: ['active', 'paused', 'stopped', 'error'] },
  pause: { ...acts, states: ['active'] },
  unpause: { ...acts, states: ['paused'] },
  /** As in Nova, a lock is no reason against it: it changes nothing that the guest sees. */
  snapshot: { ...acts, keptByLock: false, states: ['active', 'paused', 'stopped'] },
  'attach-volume': { ...acts, states: ['active', 'paused', 'stopped'] },
  'detach-volume': { ...acts, states: ['active', 'paused', 'stopped'] },
  'schedule-backups': { ...notes, keptByLock: true },
  hydrate: { ...acts, ownRoot: true, states: ['active'] },
  migrate: { ...acts, least: 'admin', keptByLock: false, states: ['active', 'paused'] },
  'cancel-job': { ...notes, keptByLock: true },
  /** Also of one that never started: from another image it may. */
  rebuild: { ...acts, afterLaunch: undefined, states: ['active', 'paused', 'stopped', 'error'] },
  lock: notes,
  unlock: notes,
  /** Of what an administrator locked. */
  'unlock-for-admin': { ...notes, least: 'admin' },
} as const satisfies Record<string, Rule>
export type InstanceVerb = keyof typeof instancePolicy

/** What concerns no instance that is there yet: the least role. */
export const servicePolicy = {
  list: 'reader',
  'list-all-projects': 'admin',
  create: 'member',
  'read-flavors': 'reader',
  'read-private-flavors': 'admin',
  'change-flavors': 'admin',
  'read-flavor-access': 'admin',
  'own-keypairs': 'reader',
  'keypairs-of-others': 'admin',
  'read-limits': 'reader',
  'read-limits-of-others': 'admin',
  'read-zones': 'reader',
  'read-hosts': 'admin',
} as const satisfies Record<string, Least>
export type ServiceVerb = keyof typeof servicePolicy

export const standingOf = (caller: Pick<Caller, 'projectId'>, { projectId }: Pick<InstanceRecord, 'projectId'>): Standing =>
  caller.projectId === projectId ? 'owner' : 'stranger'

type State = Pick<InstanceRecord, 'vmState' | 'taskState' | 'lock' | 'launchedAt' | 'imageId'>

/** One cell of the table. */
export function decide(verb: InstanceVerb, rank: Rank, standing: Standing, state: State): Verdict {
  const rule: Rule = instancePolicy[verb]
  const isAdmin = rank === 'admin'
  if (!isAdmin && (standing === 'stranger' || rank === 'none')) return 'hide'
  if (!suffices(rank, rule.least)) return 'deny'
  if (rule.keptByLock && state.lock && !isAdmin) return 'conflict'
  if (rule.afterLaunch && state.launchedAt === null) return 'conflict'
  if (rule.ownRoot && startsFromVolume(state)) return 'conflict'
  if (!rule.states.includes(state.vmState)) return 'conflict'
  if (state.taskState === 'deleting') return rule.least === 'reader' || verb === 'delete' ? 'allow' : 'conflict'
  return state.taskState !== null && !rule.whileBusy ? 'conflict' : 'allow'
}

/** @throws ServiceError `not-found`, `denied` or `conflict` */
export function authorize(caller: Caller, verb: InstanceVerb, instance: InstanceRecord): void {
  const verdict = decide(verb, rankOf(caller), standingOf(caller, instance), instance)
  if (verdict === 'allow') return
  if (verdict === 'hide') throw noSuchInstance(instance.id)
  const details = { instanceId: instance.id, verb, vmState: instance.vmState, taskState: instance.taskState }
  if (verdict === 'conflict') throw new ServiceError('conflict', stateProblem(caller, verb, instance), details)
  const { least }: Rule = instancePolicy[verb]
  const who = least === 'admin' ? 'an administrator' : `the role "${least}" in the project that owns it`
  throw new ServiceError('denied', `"${verb}" of instance ${instance.id} needs ${who}`, details)
}

export const isAllowed = (caller: Caller, verb: ServiceVerb): boolean => suffices(rankOf(caller), servicePolicy[verb])

/** @throws ServiceError `denied` */
export function authorizeService(caller: Caller, verb: ServiceVerb): void {
  if (isAllowed(caller, verb)) return
  throw new ServiceError('denied', `"${verb}" needs the role "${servicePolicy[verb]}" in a project`, { verb })
}

/** In the same words whether there never was one, or it is not the caller's to see. */
export const noSuchInstance = (id: string): ServiceError =>
  new ServiceError('not-found', `Instance ${id.slice(0, 80)} could not be found.`)

/** Nova's sentence first: people search for it. */
function stateProblem(caller: Caller, verb: InstanceVerb, instance: InstanceRecord): string {
  const { id, vmState, taskState, lock, launchedAt } = instance
  const rule: Rule = instancePolicy[verb]
  if (rule.keptByLock && lock && rankOf(caller) !== 'admin') return `Instance ${id} is locked: unlock it first`
  if (rule.afterLaunch && launchedAt === null) return `Cannot '${verb}' instance ${id} while it has never run: delete it`
  if (rule.ownRoot && startsFromVolume(instance))
    return `Cannot '${verb}' instance ${id}, which starts from a volume: it has no disk of its own`
  if (rule.states.includes(vmState))
    return `Cannot '${verb}' instance ${id} while it is in task_state ${taskState}: wait until that is done`
  return `Cannot '${verb}' instance ${id} while it is in vm_state ${vmState}: it takes one that is ${rule.states.join(' or ')}`
}
