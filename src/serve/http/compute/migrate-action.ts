import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { migrateInstance } from '../../../instances/migrate/begin-migrate.ts'
import { bodyOf } from '../json-body.ts'
import { isYes } from '../paging.ts'
import { type Answer, accepted, type Call } from './route.ts'
import { strict, yesOrNo } from './schemas.ts'

const host = Type.Union([Type.String({ minLength: 1, maxLength: 255 }), Type.Null()])
const body = (fields: Parameters<typeof Type.Object>[0]) =>
  bodyOf(Type.Object({ 'os-migrateLive': Type.Object({ host, ...fields }, strict) }, strict))
const orAuto = Type.Union([yesOrNo, Type.Literal('auto')])

/** What the version's body has. Source: Nova, `nova/api/openstack/compute/schemas/migrate_server.py`. */
const bodies = [
  { since: 68, parse: body({ block_migration: orAuto }) },
  { since: 30, parse: body({ block_migration: orAuto, force: Type.Optional(yesOrNo) }) },
  { since: 25, parse: body({ block_migration: orAuto }) },
  { since: 1, parse: body({ block_migration: yesOrNo, disk_over_commit: yesOrNo }) },
] as const

/**
 * `os-migrateLive`. What a guest wrote to disks of its own is moved, and what lies in the store is not, whatever is asked for:
 * `block_migration` is taken as a hint. There is no migration that is not looked at first, so `force` is refused.
 * @throws ServiceError `invalid-request`, and as `migrateInstance`
 */
export async function migrateLiveAction({ ports, caller, body, minor }: Call, id: string): Promise<Answer> {
  const { parse } = bodies.find(({ since }) => minor >= since) ?? bodies[3]
  const asked = parse(body)['os-migrateLive'] as { readonly host: string | null; readonly force?: unknown }
  if (isYes(String(asked.force ?? false))) {
    throw new ServiceError('invalid-request', 'force: whether the host can take the instance is looked at here; ask without it')
  }
  await migrateInstance(ports, caller, id, { to: asked.host })
  return accepted
}
