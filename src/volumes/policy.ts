import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { type Least, type Rank, rankOf, suffices } from '../base/rank.ts'
import type { SnapshotRecord, SnapshotStatus, VolumeRecord, VolumeStatus } from './records.ts'

/**
 * Who may do what to a volume or a snapshot of one: role × ownership × status × verb → a verdict. Every use case asks this table and
 * nothing else. The rules are Cinder's with its secure defaults: a reader of the project looks, a member does all to what the
 * project has, an administrator to whatever there is.
 */
export type Verdict =
  | 'allow'
  /** The caller knows it and may not do this: 403. */
  | 'deny'
  /** The caller may do this, but not while it is in this status: 400, as in Cinder. */
  | 'conflict'
  /** To this caller it does not exist: 404. */
  | 'hide'

export type Standing = 'owner' | 'stranger'

interface Rule<Status> {
  /** The least role that suffices in the project that owns it. */
  readonly least: Least
  readonly statuses: readonly Status[]
}

const anyStatus: readonly VolumeStatus[] = [
  ...(['creating', 'available', 'attaching', 'in-use', 'detaching', 'extending', 'uploading'] as const),
  ...(['deleting', 'error', 'error_deleting'] as const),
]
const kept = anyStatus.filter((status) => status !== 'deleting')

export const volumePolicy = {
  show: { least: 'reader', statuses: anyStatus },
  update: { least: 'member', statuses: kept },
  'set-read-only': { least: 'member', statuses: ['available'] },
  delete: { least: 'member', statuses: ['available', 'error', 'error_deleting'] },
  'force-delete': { least: 'admin', statuses: anyStatus },
  extend: { least: 'member', statuses: ['available'] },
  snapshot: { least: 'member', statuses: ['available'] },
  'snapshot-in-use': { least: 'member', statuses: ['available', 'in-use'] },
  copy: { least: 'member', statuses: ['available', 'in-use'] },
  upload: { least: 'member', statuses: ['available'] },
  'upload-in-use': { least: 'member', statuses: ['available', 'in-use'] },
  attach: { least: 'member', statuses: ['available'] },
  'reset-status': { least: 'admin', statuses: kept },
} as const satisfies Record<string, Rule<VolumeStatus>>
export type VolumeVerb = keyof typeof volumePolicy

const anySnapshot: readonly SnapshotStatus[] = ['creating', 'available', 'deleting', 'error', 'error_deleting']

export const snapshotPolicy = {
  show: { least: 'reader', statuses: anySnapshot },
  update: { least: 'member', statuses: ['creating', 'available', 'error', 'error_deleting'] },
  use: { least: 'member', statuses: ['available'] },
  delete: { least: 'member', statuses: ['available', 'error', 'error_deleting'] },
  'force-delete': { least: 'admin', statuses: ['available', 'deleting', 'error', 'error_deleting'] },
  'reset-status': { least: 'admin', statuses: ['available', 'error', 'error_deleting'] },
} as const satisfies Record<string, Rule<SnapshotStatus>>
export type SnapshotVerb = keyof typeof snapshotPolicy

/** What concerns no volume that is there yet: the least role. */
export const servicePolicy = {
  list: 'reader',
  'list-all-projects': 'admin',
  create: 'member',
  'read-types': 'reader',
  'read-limits': 'reader',
  'read-limits-of-others': 'admin',
  'read-zones': 'reader',
  'read-services': 'admin',
} as const satisfies Record<string, Least>
export type ServiceVerb = keyof typeof servicePolicy

export const standingOf = (caller: Pick<Caller, 'projectId'>, { projectId }: { readonly projectId: string }): Standing =>
  caller.projectId === projectId ? 'owner' : 'stranger'

/** One cell of the table. */
export function decide<Status>({ least, statuses }: Rule<Status>, rank: Rank, standing: Standing, status: Status): Verdict {
  if (rank !== 'admin' && (standing === 'stranger' || rank === 'none')) return 'hide'
  if (!suffices(rank, least)) return 'deny'
  return statuses.includes(status) ? 'allow' : 'conflict'
}

/** @throws ServiceError `not-found`, `denied` or `conflict` */
export function authorizeVolume(caller: Caller, verb: VolumeVerb, volume: VolumeRecord): void {
  const rule: Rule<VolumeStatus> = volumePolicy[verb]
  const verdict = decide(rule, rankOf(caller), standingOf(caller, volume), volume.status)
  if (verdict === 'hide') throw noSuchVolume(volume.id)
  refuse(verdict, rule, verb, 'volume', volume)
}

/** @throws ServiceError `not-found`, `denied` or `conflict` */
export function authorizeSnapshot(caller: Caller, verb: SnapshotVerb, snapshot: SnapshotRecord): void {
  const rule: Rule<SnapshotStatus> = snapshotPolicy[verb]
  const verdict = decide(rule, rankOf(caller), standingOf(caller, snapshot), snapshot.status)
  if (verdict === 'hide') throw noSuchSnapshot(snapshot.id)
  refuse(verdict, rule, verb, 'snapshot', snapshot)
}

function refuse<Status extends string>(
  verdict: Exclude<Verdict, 'hide'>,
  { least, statuses }: Rule<Status>,
  verb: string,
  what: 'volume' | 'snapshot',
  { id, status }: { readonly id: string; readonly status: Status },
): void {
  if (verdict === 'allow') return
  const details = { id, verb, status }
  if (verdict === 'conflict') {
    // Cinder's sentence first: people search for it
    const message = `Invalid ${what}: ${what} ${id} status must be ${statuses.join(' or ')} for "${verb}", but current status is: ${status}`
    throw new ServiceError('conflict', message, details)
  }
  const who = least === 'admin' ? 'an administrator' : `the role "${least}" in the project that owns it`
  throw new ServiceError('denied', `"${verb}" of ${what} ${id} needs ${who}`, details)
}

export const isAllowed = (caller: Caller, verb: ServiceVerb): boolean => suffices(rankOf(caller), servicePolicy[verb])

/** @throws ServiceError `denied` */
export function authorizeService(caller: Caller, verb: ServiceVerb): void {
  if (isAllowed(caller, verb)) return
  throw new ServiceError('denied', `"${verb}" needs the role "${servicePolicy[verb]}" in a project`, { verb })
}

/** In the same words whether there never was one, or it is not the caller's to see. */
export const noSuchVolume = (id: string): ServiceError =>
  new ServiceError('not-found', `Volume ${id.slice(0, 80)} could not be found.`)
export const noSuchSnapshot = (id: string): ServiceError =>
  new ServiceError('not-found', `Snapshot ${id.slice(0, 80)} could not be found.`)
