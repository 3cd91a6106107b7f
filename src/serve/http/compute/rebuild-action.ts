import { type Static, Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { type RebuildWish, rebuildInstance } from '../../../instances/rebuild/begin-rebuild.ts'
import { bodyOf } from '../json-body.ts'
import { isYes } from '../paging.ts'
import { assertFieldsOf } from './fields-by-version.ts'
import { addressFrom } from './new-server.ts'
import type { Answer, Call } from './route.ts'
import { description, metadata, name, strict, yesOrNo } from './schemas.ts'
import { serverJson } from './server-json.ts'
import { lookOf } from './volume-attachments.ts'

const text = Type.String({ maxLength: 255 })
const rebuild = {
  imageRef: Type.String({ minLength: 1, maxLength: 1024 }),
  name: Type.Optional(name),
  adminPass: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
  metadata: Type.Optional(metadata),
  preserve_ephemeral: Type.Optional(yesOrNo),
  accessIPv4: Type.Optional(text),
  accessIPv6: Type.Optional(text),
  'OS-DCF:diskConfig': Type.Optional(Type.Union([Type.Literal('AUTO'), Type.Literal('MANUAL')])),
  personality: Type.Optional(Type.Array(Type.Object({}), { maxItems: 64 })),
  description: Type.Optional(description),
  key_name: Type.Optional(Type.Union([Type.String({ minLength: 1, maxLength: 255 }), Type.Null()])),
  user_data: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  trusted_image_certificates: Type.Optional(Type.Union([Type.Array(text, { maxItems: 50 }), Type.Null()])),
}
type Wanted = Static<ReturnType<typeof Type.Object<typeof rebuild>>>
const parse = bodyOf(Type.Object({ rebuild: Type.Object(rebuild, strict) }, strict))
const versions = {
  since: { description: 19, key_name: 54, user_data: 57, trusted_image_certificates: 63 },
  until: { personality: 57 },
} as const

/** `rebuild`. @throws ServiceError `invalid-request`, and as `rebuildInstance` */
export async function rebuildAction(call: Call, id: string): Promise<Answer> {
  const wanted = parse(call.body).rebuild
  assertFieldsOf(call.minor, wanted, versions, 'rebuild')
  const instance = await rebuildInstance(call.ports, call.caller, id, wishFrom(wanted))
  const groups = call.minor >= 71 ? { server_groups: [] } : {}
  return { status: 202, body: { server: { ...serverJson(await lookOf(call), instance), ...groups } } }
}

function wishFrom(wanted: Wanted): RebuildWish {
  if (wanted.personality?.length) refuse('personality: files are not injected here; give user_data')
  if (wanted.trusted_image_certificates?.length) refuse('trusted_image_certificates: signatures of images are not checked here')
  if (isYes(String(wanted.preserve_ephemeral ?? false))) refuse('preserve_ephemeral: instances here have no ephemeral disk')
  return {
    imageId: wanted.imageRef.split('/').at(-1) ?? '',
    ...(wanted.name === undefined ? {} : { name: wanted.name }),
    ...(wanted.description === undefined ? {} : { description: wanted.description }),
    ...(wanted.metadata === undefined ? {} : { metadata: wanted.metadata }),
    ...(wanted.adminPass === undefined ? {} : { adminPassword: wanted.adminPass }),
    ...(wanted.key_name === undefined ? {} : { keyName: wanted.key_name }),
    ...(wanted.user_data === undefined ? {} : { userData: wanted.user_data }),
    ...(wanted.accessIPv4 === undefined ? {} : { accessIPv4: addressFrom(wanted.accessIPv4, 'accessIPv4') }),
    ...(wanted.accessIPv6 === undefined ? {} : { accessIPv6: addressFrom(wanted.accessIPv6, 'accessIPv6') }),
    ...(wanted['OS-DCF:diskConfig'] === undefined ? {} : { diskConfig: wanted['OS-DCF:diskConfig'] }),
  }
}

function refuse(problem: string): never {
  throw new ServiceError('invalid-request', problem)
}
