import {
  createApplicationCredential,
  deleteApplicationCredential,
  getApplicationCredential,
  listApplicationCredentials,
  type NewApplicationCredential,
  rolesOfCredential,
} from '../../../identity/application-credentials.ts'
import type { ApplicationCredentialRecord } from '../../../identity/records.ts'
import { type Fields, rules } from './fields.ts'
import { collection, filtered, showApplicationCredential } from './presentation.ts'
import { invalid } from './refusals.ts'
import { type Call, created, noContent, ok, type Route } from './route.ts'

const MAX_ROLES = 64
const path = '/users/:userId/application_credentials'

export const applicationCredentialRoutes: readonly Route[] = [
  {
    method: 'GET',
    path,
    async handle(call) {
      const { items, truncated } = await listApplicationCredentials(call.ports, call.caller, call.params.userId ?? '')
      const shown = await Promise.all(items.map((credential) => show(call, credential)))
      const self = `${call.base}/users/${call.params.userId}/application_credentials`
      return ok(collection('application_credentials', filtered(shown, call.query, ['name']), self, truncated))
    },
  },
  {
    method: 'POST',
    path,
    async handle(call) {
      const wanted = readCredential(call.body.object('application_credential'))
      const { credential, secret } = await createApplicationCredential(call.ports, call.caller, call.params.userId ?? '', wanted)
      return created({ application_credential: { ...(await show(call, credential)), secret } })
    },
  },
  {
    method: 'GET',
    path: `${path}/:credentialId`,
    async handle(call) {
      const credential = await getApplicationCredential(
        call.ports,
        call.caller,
        call.params.userId ?? '',
        call.params.credentialId ?? '',
      )
      return ok({ application_credential: await show(call, credential) })
    },
  },
  {
    method: 'DELETE',
    path: `${path}/:credentialId`,
    async handle({ ports, caller, params }) {
      await deleteApplicationCredential(ports, caller, params.userId ?? '', params.credentialId ?? '')
      return noContent
    },
  },
  {
    // Access rules narrow a credential to some paths; none can be made here, so there are none.
    method: 'GET',
    path: '/users/:userId/access_rules',
    async handle({ ports, caller, params, base }) {
      await listApplicationCredentials(ports, caller, params.userId ?? '')
      return ok(collection('access_rules', [], `${base}/users/${params.userId}/access_rules`))
    },
  },
]

const show = async ({ ports, base }: Call, credential: ApplicationCredentialRecord) =>
  showApplicationCredential(credential, await rolesOfCredential(ports, credential), base)

function readCredential(fields: Fields): NewApplicationCredential {
  const description = fields.nullableText('description', rules.free)
  const secret = fields.nullableText('secret', rules.free)
  const expires = fields.nullableText('expires_at', rules.reference)
  const unrestricted = fields.flag('unrestricted')
  const roles = fields.optionalList('roles', MAX_ROLES)?.map((role) => {
    const id = role.optionalText('id', rules.id)
    return id === undefined ? { name: role.text('name', rules.name) } : { id }
  })
  if ((fields.optionalList('access_rules', MAX_ROLES)?.length ?? 0) > 0) {
    // Taking them and not holding them would give a wider credential than was asked for.
    throw invalid('access_rules are not served: leave them out, or narrow the credential by its roles')
  }
  return {
    name: fields.text('name', rules.name),
    ...(description === undefined ? {} : { description }),
    ...(secret === undefined ? {} : { secret }),
    ...(expires == null ? {} : { expiresAt: readTime(expires) }),
    ...(roles === undefined ? {} : { roles }),
    ...(unrestricted === undefined ? {} : { unrestricted }),
  }
}

/** ISO 8601, to the microsecond; UTC where no zone is named. */
function readTime(text: string): number {
  const form = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?$/
  const zoned = /(Z|[+-]\d\d:?\d\d)$|^\d{4}-\d\d-\d\d$/.test(text) ? text : `${text}Z`
  const ms = form.test(text) ? Date.parse(zoned.replace(/\.\d+/, '')) : Number.NaN
  if (Number.isNaN(ms)) throw invalid('expires_at must be a time such as 2030-12-31T23:59:59')
  const fraction = /\.(\d+)/.exec(text)?.[1] ?? ''
  return ms + Number(fraction.slice(0, 6).padEnd(6, '0')) / 1000
}
