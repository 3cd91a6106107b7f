import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { createKeypair, deleteKeypair, listKeypairs, showKeypair } from '../../../instances/keypairs/keypairs.ts'
import type { KeypairRecord } from '../../../instances/records.ts'
import { bodyOf } from '../json-body.ts'
import { limitFrom, nextLink, refuseUnknown } from '../paging.ts'
import { isoMicroseconds } from '../times.ts'
import { accepted, type Call, noContent, ok, part, type Route } from './route.ts'
import { strict } from './schemas.ts'

/** Nova's `safe_chars`, and those that version 2.92 added. */
const name = Type.String({
  minLength: 1,
  maxLength: 255,
  pattern: '^[A-Za-z0-9@._-]([A-Za-z0-9@._ -]*[A-Za-z0-9@._-])?$',
  description: 'Keypair name contains unsafe characters: it takes letters, digits, "@", ".", "_", "-", and blanks within',
})
const keypair = {
  name,
  public_key: Type.Optional(Type.String({ maxLength: 65_535 })),
}
const type = Type.Optional(Type.Union([Type.Literal('ssh'), Type.Literal('x509')], { description: 'ssh or x509' }))
const userId = Type.Optional(
  Type.String({ minLength: 1, maxLength: 64, pattern: '^[A-Za-z0-9-]+$', description: 'the id of a user' }),
)
const createBody = bodyOf(Type.Object({ keypair: Type.Object(keypair, strict) }, strict))
const createBody2 = bodyOf(Type.Object({ keypair: Type.Object({ ...keypair, type }, strict) }, strict))
const createBody10 = bodyOf(Type.Object({ keypair: Type.Object({ ...keypair, type, user_id: userId }, strict) }, strict))

export const keypairRoutes: readonly Route[] = [
  { method: 'GET', path: '/os-keypairs', handle: list },
  { method: 'POST', path: '/os-keypairs', handle: create },
  {
    method: 'GET',
    path: '/os-keypairs/:name',
    async handle(call) {
      refuseUnknown(call.query, call.minor, ['user_id'])
      const found = await showKeypair(call.ports, call.caller, part(call, 'name'), ownerFrom(call))
      const { userId: user_id, createdAt } = found
      const rest = { user_id, id: 0, created_at: isoMicroseconds(createdAt), updated_at: null, deleted: false, deleted_at: null }
      return ok({ keypair: { ...keypairJson(call, found), ...rest } })
    },
  },
  {
    method: 'DELETE',
    path: '/os-keypairs/:name',
    async handle(call) {
      refuseUnknown(call.query, call.minor, ['user_id'])
      await deleteKeypair(call.ports, call.caller, part(call, 'name'), ownerFrom(call))
      return call.minor >= 2 ? noContent : accepted
    },
  },
]

/** Whose they are: administrators may name another user since version 2.10. */
const ownerFrom = ({ query, minor }: Call): string | undefined => (minor >= 10 ? (query.get('user_id') ?? undefined) : undefined)

async function list(call: Call) {
  const { ports, caller, query, minor } = call
  refuseUnknown(query, minor, ['user_id', 'limit', 'marker'])
  const all = await listKeypairs(ports, caller, ownerFrom(call))
  const pages = minor >= 35
  const limit = pages ? limitFrom(query) : all.length
  const marker = pages ? query.get('marker') : null
  const after = marker === null ? -1 : all.findIndex((found) => found.name === marker)
  if (marker !== null && after < 0) throw new ServiceError('invalid-request', `marker [${marker.slice(0, 80)}] not found`)
  const page = all.slice(after + 1, after + 1 + limit)
  const last = all.length > after + 1 + limit ? page.at(-1) : undefined
  return ok({
    keypairs: page.map((found) => ({ keypair: keypairJson(call, found) })),
    ...(last ? { keypairs_links: [nextLink(`${call.base}/os-keypairs`, query, last.name)] } : {}),
  })
}

async function create(call: Call) {
  const { ports, caller, minor, body } = call
  const wanted: { name: string; public_key?: string; type?: string; user_id?: string } = (
    minor >= 10 ? createBody10 : minor >= 2 ? createBody2 : createBody
  )(body).keypair
  if (wanted.type === 'x509') {
    throw new ServiceError(
      'invalid-request',
      'keypairs of the type x509 are for guests with Windows: here there are only those of the type ssh',
    )
  }
  const { keypair, privateKey } = await createKeypair(ports, caller, {
    name: wanted.name,
    ...(wanted.public_key === undefined ? {} : { publicKey: wanted.public_key }),
    ...(wanted.user_id === undefined ? {} : { userId: wanted.user_id }),
  })
  const told = privateKey === null ? {} : { private_key: privateKey }
  return {
    status: minor >= 2 ? 201 : 200,
    body: { keypair: { ...keypairJson(call, keypair), user_id: keypair.userId, ...told } },
  }
}

const keypairJson = ({ minor }: Call, { name, publicKey, fingerprint }: KeypairRecord) => ({
  name,
  public_key: publicKey,
  fingerprint,
  ...(minor >= 2 ? { type: 'ssh' } : {}),
})
