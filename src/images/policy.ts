import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { type Least, type Rank, rankOf, suffices } from '../base/rank.ts'
import type { ImageMember, ImageRecord, ImageStatus, Visibility } from '../store/catalog/catalog.ts'

/**
 * Who may do what to an image: role × visibility × ownership or membership × state × verb → a verdict. Every use case asks
 * this table and nothing else; `docs/policy.md` is printed from it. The rules are Glance 25's with its secure defaults: a
 * reader looks, a member changes what the project owns, an administrator does all that can be done.
 */
export type Verdict =
  | 'allow'
  /** The caller knows the image and may not do this: 403. */
  | 'deny'
  /** The caller may do this, but not while the image is in this state: 409. */
  | 'conflict'
  /** To this caller the image does not exist: 404. */
  | 'hide'

/** How a project stands to an image. */
export type Standing =
  | 'owner'
  /** The image is shared, and with this project, whatever the project answered. */
  | 'member'
  /** The image is public or for the community. */
  | 'audience'
  | 'stranger'

type InState = 'allow' | 'deny' | 'conflict' | 'admin'

interface Rule {
  readonly owner: Least
  readonly member: Least
  readonly audience: Least
  /** What becomes of a caller with the role; `admin`: allowed to administrators, denied to others. */
  readonly states: Readonly<Record<Exclude<ImageStatus, 'deleted'>, InState>>
  /** Membership is a thing of shared images: on others the verb is denied. */
  readonly onlyShared?: true
  /** A wrong state is told to whoever sees the image, before anybody's role is asked for. */
  readonly stateFirst?: true
}

const inAnyState: Rule['states'] = {
  queued: 'allow',
  saving: 'allow',
  uploading: 'allow',
  importing: 'allow',
  active: 'allow',
  deactivated: 'allow',
  killed: 'allow',
}
const only = (states: readonly ImageStatus[], otherwise: 'conflict' | 'deny'): Rule['states'] =>
  Object.fromEntries(
    Object.keys(inAnyState).map((state) => [state, states.includes(state as ImageStatus) ? 'allow' : otherwise]),
  ) as Rule['states']

const lookers = { owner: 'reader', member: 'reader', audience: 'reader' } as const
const takers = { owner: 'member', member: 'member', audience: 'member' } as const
const owners = { owner: 'member', member: 'admin', audience: 'admin' } as const
const administrators = { owner: 'admin', member: 'admin', audience: 'admin' } as const

export const imagePolicy = {
  show: { ...lookers, states: inAnyState },
  download: { ...takers, states: { ...inAnyState, deactivated: 'admin' } },
  update: { ...owners, states: inAnyState },
  tag: { ...owners, states: inAnyState },
  communitize: { ...owners, states: inAnyState },
  publicize: { ...administrators, states: inAnyState },
  'change-owner': { ...administrators, states: inAnyState },
  delete: { ...owners, states: inAnyState },
  upload: { ...owners, states: only(['queued'], 'conflict') },
  stage: { ...owners, states: only(['queued'], 'conflict') },
  'import-staged': { ...owners, states: only(['uploading'], 'conflict'), stateFirst: true },
  'import-download': { ...owners, states: only(['queued'], 'conflict'), stateFirst: true },
  'import-copy': { ...administrators, states: only(['active'], 'conflict'), stateFirst: true },
  deactivate: { ...owners, states: only(['active', 'deactivated'], 'deny') },
  reactivate: { ...owners, states: only(['active', 'deactivated'], 'deny') },
  'delete-from-store': { ...administrators, states: only(['active'], 'conflict') },
  'add-member': { ...owners, states: inAnyState, onlyShared: true },
  'list-members': { owner: 'reader', member: 'reader', audience: 'admin', states: inAnyState, onlyShared: true },
  'answer-membership': { owner: 'admin', member: 'member', audience: 'admin', states: inAnyState, onlyShared: true },
  'delete-member': { ...owners, states: inAnyState, onlyShared: true },
} as const satisfies Record<string, Rule>
export type ImageVerb = keyof typeof imagePolicy

/** What concerns no image that is there yet: the least role. */
export const servicePolicy = {
  list: 'reader',
  create: 'member',
  'create-public': 'admin',
  'create-for-another-project': 'admin',
  'read-tasks': 'admin',
  'read-store-details': 'admin',
  'manage-cache': 'admin',
} as const satisfies Record<string, Least>
export type ServiceVerb = keyof typeof servicePolicy

type Target = Pick<ImageRecord, 'owner' | 'visibility'>

export function standingOf(
  caller: Pick<Caller, 'projectId'>,
  image: Target,
  membership: Pick<ImageMember, 'memberId'> | undefined,
): Standing {
  if (image.owner !== null && image.owner === caller.projectId) return 'owner'
  if (image.visibility === 'shared' && membership && membership.memberId === caller.projectId) return 'member'
  return image.visibility === 'public' || image.visibility === 'community' ? 'audience' : 'stranger'
}

/** One cell of the table. */
export function decide(
  verb: ImageVerb,
  rank: Rank,
  standing: Standing,
  { visibility, status }: { readonly visibility: Visibility; readonly status: ImageStatus },
): Verdict {
  if (status === 'deleted') return 'hide'
  const rule: Rule = imagePolicy[verb]
  const isAdmin = rank === 'admin'
  if (!isAdmin && (standing === 'stranger' || !suffices(rank, 'reader'))) return 'hide'
  if (rule.onlyShared && visibility !== 'shared') return 'deny'
  const least: Least = standing === 'stranger' ? 'admin' : rule[standing]
  const inState = rule.states[status]
  if (!suffices(rank, least)) return rule.stateFirst && inState === 'conflict' ? 'conflict' : 'deny'
  return inState === 'admin' ? (isAdmin ? 'allow' : 'deny') : inState
}

/**
 * @param membership the caller's own, where there is one
 * @throws ServiceError `not-found`, `denied` or `conflict`
 */
export function authorize(caller: Caller, verb: ImageVerb, image: ImageRecord, membership?: ImageMember): void {
  const verdict = decide(verb, rankOf(caller), standingOf(caller, image, membership), image)
  if (verdict === 'allow') return
  if (verdict === 'hide') throw noSuchImage(image.id)
  const details = { imageId: image.id, verb, status: image.status }
  if (verdict === 'conflict') {
    const states = statesFor(verb).join(' or ')
    throw new ServiceError('conflict', `image ${image.id} is ${image.status}: ${verb} takes an image that is ${states}`, details)
  }
  throw new ServiceError('denied', reasonOf(verb, image), details)
}

export function isAllowed(caller: Caller, verb: ServiceVerb): boolean {
  return suffices(rankOf(caller), servicePolicy[verb])
}

/** @throws ServiceError `denied` */
export function authorizeService(caller: Caller, verb: ServiceVerb): void {
  if (isAllowed(caller, verb)) return
  throw new ServiceError('denied', `"${verb}" needs the role "${servicePolicy[verb]}"`, { verb })
}

/** In the same words whether there never was one, it is deleted, or it is not the caller's to see. */
export const noSuchImage = (id: string): ServiceError =>
  new ServiceError('not-found', `there is no image with the id ${JSON.stringify(id.slice(0, 80))}`)

const statesFor = (verb: ImageVerb): string[] =>
  Object.entries<InState>(imagePolicy[verb].states)
    .filter(([, inState]) => inState === 'allow')
    .map(([state]) => state)

function reasonOf(verb: ImageVerb, image: ImageRecord): string {
  const rule: Rule = imagePolicy[verb]
  if (rule.onlyShared && image.visibility !== 'shared')
    return `image ${image.id} is ${image.visibility}: only shared images have members`
  const inState = image.status === 'deleted' ? 'allow' : rule.states[image.status]
  if (inState === 'deny' || inState === 'admin') {
    return `image ${image.id} is ${image.status}: "${verb}" is not allowed in this state`
  }
  if (verb === 'answer-membership') return `only a project that image ${image.id} is shared with answers for its membership`
  return rule.owner === 'admin'
    ? `"${verb}" of image ${image.id} is for administrators`
    : `"${verb}" of image ${image.id} needs the role "${rule.owner}" in the project that owns it`
}
