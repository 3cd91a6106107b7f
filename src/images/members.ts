import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import type { CatalogReader, ImageMember, ImageRecord, MemberStatus } from '../store/catalog/catalog.ts'
import { assertAtMost, isTag, MAX_MEMBERS, quoted } from './attributes.ts'
import { recordAudit } from './audit.ts'
import { findImage } from './find-image.ts'
import { authorize } from './policy.ts'
import type { ImagePorts } from './ports.ts'

export const memberStatuses: readonly MemberStatus[] = ['pending', 'accepted', 'rejected']

/** Every member, for who owns the image; for a member, that one alone. @throws ServiceError `not-found`, `denied` */
export async function listMembers({ catalog }: ImagePorts, caller: Caller, id: string): Promise<readonly ImageMember[]> {
  const { image, membership } = await findImage(catalog, caller, id, 'list-members')
  if (membership && !caller.isAdmin) return [membership]
  return catalog.images.members(image.id)
}

/** What the caller may not look at is not there. @throws ServiceError `not-found` */
export async function showMember({ catalog }: ImagePorts, caller: Caller, id: string, memberId: string): Promise<ImageMember> {
  const { image, membership } = await findImage(catalog, caller, id, 'show')
  try {
    authorize(caller, 'list-members', image, membership)
  } catch (cause) {
    throw noSuchMember(image, memberId, cause)
  }
  return memberFor(catalog, caller, image, memberId)
}

/** Shares the image with a project, which has yet to answer. @throws ServiceError `not-found`, `denied`, `invalid-request`, `conflict`, `too-large` */
export async function addMember(ports: ImagePorts, caller: Caller, id: string, memberId: string): Promise<ImageMember> {
  if (memberId === '' || !isTag(memberId))
    throw new ServiceError('invalid-request', 'a member is a project id of 1 to 255 characters')
  return ports.catalog.write(async (tx) => {
    const { image } = await findImage(tx, caller, id, 'add-member')
    const members = await tx.images.members(image.id)
    if (members.some((member) => member.memberId === memberId)) {
      throw new ServiceError('conflict', `image ${image.id} is shared with ${quoted(memberId)} already`)
    }
    assertAtMost('members', members.length + 1, MAX_MEMBERS)
    const at = ports.now()
    const member: ImageMember = { imageId: image.id, memberId, status: 'pending', createdAt: at, updatedAt: at }
    await tx.images.putMember(member)
    await recordAudit(tx, caller, 'add-member', image, at, { memberId })
    return member
  })
}

/** The member's own answer. @throws ServiceError `not-found`, `denied`, `invalid-request` */
export async function answerMembership(
  ports: ImagePorts,
  caller: Caller,
  id: string,
  memberId: string,
  status: unknown,
): Promise<ImageMember> {
  return ports.catalog.write(async (tx) => {
    const { image } = await findImage(tx, caller, id, 'answer-membership')
    const member = await memberFor(tx, caller, image, memberId)
    const answer = memberStatuses.find((word) => word === status)
    if (!answer) throw new ServiceError('invalid-request', `the status of a membership is one of ${memberStatuses.join(', ')}`)
    const at = ports.now()
    const answered = { ...member, status: answer, updatedAt: at }
    await tx.images.putMember(answered)
    await recordAudit(tx, caller, 'answer-membership', image, at, { memberId, status: answer })
    return answered
  })
}

/** @throws ServiceError `not-found`, `denied` */
export async function deleteMember(ports: ImagePorts, caller: Caller, id: string, memberId: string): Promise<void> {
  await ports.catalog.write(async (tx) => {
    const { image } = await findImage(tx, caller, id, 'delete-member')
    await memberFor(tx, caller, image, memberId)
    await tx.images.deleteMember(image.id, memberId)
    await recordAudit(tx, caller, 'delete-member', image, ports.now(), { memberId })
  })
}

/** Another project's membership is for who owns the image, and for administrators. */
async function memberFor({ images }: CatalogReader, caller: Caller, image: ImageRecord, memberId: string): Promise<ImageMember> {
  const mayLook = caller.isAdmin || caller.projectId === image.owner || caller.projectId === memberId
  const member = mayLook ? await images.member(image.id, memberId) : undefined
  if (!member) throw noSuchMember(image, memberId)
  return member
}

const noSuchMember = ({ id }: ImageRecord, memberId: string, cause?: unknown): ServiceError =>
  new ServiceError('not-found', `${quoted(memberId)} is not among the members of image ${id}`, {}, { cause })
