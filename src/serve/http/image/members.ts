import type { FastifyInstance, FastifyReply } from 'fastify'
import { ServiceError } from '../../../base/errors.ts'
import { addMember, answerMembership, deleteMember, listMembers, showMember } from '../../../images/members.ts'
import type { ImageMember } from '../../../store/catalog/catalog.ts'
import { callerOf } from '../api.ts'
import { isoTime } from './image-json.ts'
import type { ImageServices } from './image-services.ts'
import { jsonObjectFrom } from './json-body.ts'
import { refuseOtherMethods } from './metadefs.ts'

const members = '/images/:id/members'
const one = `${members}/:member`
interface Path {
  readonly id: string
  readonly member: string
}

/** `/images/{id}/members`, below `/image/v2`. */
export function registerMembers(app: FastifyInstance, { ports }: ImageServices): void {
  const exposeHeadRoute = false
  app.get<{ Params: Path }>(members, { exposeHeadRoute }, async (request, reply) => {
    const found = await listMembers(ports, callerOf(request), request.params.id)
    return send(reply, { members: found.map(memberView), schema: '/v2/schemas/members' })
  })
  app.post<{ Params: Path }>(members, async (request, reply) => {
    const { member } = jsonObjectFrom(request.body)
    if (typeof member !== 'string') throw new ServiceError('invalid-request', 'the body names the project as {"member": "…"}')
    return send(reply, memberView(await addMember(ports, callerOf(request), request.params.id, member)))
  })
  refuseOtherMethods(app, members, ['GET', 'POST'])

  app.get<{ Params: Path }>(one, { exposeHeadRoute }, async (request, reply) => {
    const { id, member } = request.params
    return send(reply, memberView(await showMember(ports, callerOf(request), id, member)))
  })
  app.put<{ Params: Path }>(one, async (request, reply) => {
    const { id, member } = request.params
    const body = jsonObjectFrom(request.body)
    if (!Object.hasOwn(body, 'status')) throw new ServiceError('invalid-request', 'the body gives the answer as {"status": "…"}')
    return send(reply, memberView(await answerMembership(ports, callerOf(request), id, member, body.status)))
  })
  app.delete<{ Params: Path }>(one, async (request, reply) => {
    const { id, member } = request.params
    await deleteMember(ports, callerOf(request), id, member)
    return reply.code(204).send()
  })
  refuseOtherMethods(app, one, ['GET', 'PUT', 'DELETE'])
}

const memberView = ({ memberId, imageId, status, createdAt, updatedAt }: ImageMember) => ({
  member_id: memberId,
  image_id: imageId,
  status,
  created_at: isoTime(createdAt),
  updated_at: isoTime(updatedAt),
  schema: '/v2/schemas/member',
})

const send = (reply: FastifyReply, body: object): FastifyReply =>
  reply.header('content-type', 'application/json').send(JSON.stringify(body))
