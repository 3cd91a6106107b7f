import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { consoleLog } from '../../../instances/console-log.ts'
import { deleteInstance } from '../../../instances/delete-instance.ts'
import { lockInstance, unlockInstance } from '../../../instances/lock.ts'
import {
  hardReboot,
  pauseInstance,
  softReboot,
  startInstance,
  stopInstance,
  unpauseInstance,
} from '../../../instances/power/actions.ts'
import { bodyOf } from '../json-body.ts'
import { serialUrl } from './console-routes.ts'
import { migrateLiveAction } from './migrate-action.ts'
import { rebuildAction } from './rebuild-action.ts'
import { type Answer, accepted, type Call, ok, part, type Route } from './route.ts'
import { strict } from './schemas.ts'
import { createBackupAction, createImageAction } from './snapshot-actions.ts'

/** `POST /servers/{id}/action`: what is to be done is the name of the one field. */
type Act = (call: Call, id: string) => Promise<Answer>

const nothing = (name: string) => bodyOf(Type.Object({ [name]: Type.Unknown() }, strict))
/** Nova takes anything for the value of these, and null from all clients. */
const plain = (name: string, act: (ports: Call['ports'], caller: Call['caller'], id: string) => Promise<unknown>): Act => {
  const parse = nothing(name)
  return async ({ ports, caller, body }, id) => {
    parse(body)
    await act(ports, caller, id)
    return accepted
  }
}

const rebootBody = bodyOf(
  Type.Object(
    {
      reboot: Type.Object(
        { type: Type.String({ pattern: '^([Hh]ard|HARD|[Ss]oft|SOFT)$', description: 'HARD or SOFT' }) },
        strict,
      ),
    },
    strict,
  ),
)
const reason = Type.String({ minLength: 1, maxLength: 255 })
const lockBody = bodyOf(
  Type.Object({ lock: Type.Union([Type.Null(), Type.Object({ locked_reason: Type.Optional(reason) }, strict)]) }, strict),
)
const length = Type.Optional(
  Type.Union([Type.Integer({ minimum: -1 }), Type.String({ pattern: '^-?[0-9]{1,9}$' }), Type.Null()], {
    description: 'a number of lines',
  }),
)
const consoleBody = bodyOf(
  Type.Object({ 'os-getConsoleOutput': Type.Union([Type.Null(), Type.Object({ length }, strict)]) }, strict),
)

const serialBody = bodyOf(
  Type.Object(
    { 'os-getSerialConsole': Type.Object({ type: Type.Literal('serial', { description: 'serial' }) }, strict) },
    strict,
  ),
)

const acts: Readonly<Record<string, Act>> = {
  'os-start': plain('os-start', startInstance),
  'os-stop': plain('os-stop', stopInstance),
  pause: plain('pause', pauseInstance),
  unpause: plain('unpause', unpauseInstance),
  unlock: plain('unlock', unlockInstance),
  forceDelete: plain('forceDelete', deleteInstance),
  createImage: createImageAction,
  createBackup: createBackupAction,
  rebuild: rebuildAction,
  'os-migrateLive': migrateLiveAction,
  async reboot({ ports, caller, body }, id) {
    const { type } = rebootBody(body).reboot
    await (type.toUpperCase() === 'HARD' ? hardReboot : softReboot)(ports, caller, id)
    return accepted
  },
  async lock({ ports, caller, body, minor }, id) {
    const { lock } = minor >= 73 ? lockBody(body) : { ...nothing('lock')(body), lock: null }
    await lockInstance(ports, caller, id, lock?.locked_reason ?? null)
    return accepted
  },
  async 'os-getConsoleOutput'({ ports, caller, body }, id) {
    const lines = Number(consoleBody(body)['os-getConsoleOutput']?.length ?? -1)
    return ok({ output: await consoleLog(ports, caller, id, lines < 0 ? null : lines) })
  },
  async 'os-getSerialConsole'(call, id) {
    const { type } = serialBody(call.body)['os-getSerialConsole']
    return ok({ console: { type, url: await serialUrl(call, id) } })
  },
}

/** The last version that has an action; after it another request does the same. */
const until: Partial<Readonly<Record<string, number>>> = { 'os-getSerialConsole': 5 }

export const actionNames: readonly string[] = Object.keys(acts)

/** Nova's other actions: known, and not served here. */
const notHere: ReadonlySet<string> = new Set([
  ...['addFixedIp', 'addFloatingIp', 'addSecurityGroup', 'changePassword', 'confirmResize'],
  ...['evacuate', 'injectNetworkInfo', 'migrate', 'os-getRDPConsole', 'os-getSPICEConsole'],
  ...['os-getVNCConsole', 'os-resetState', 'removeFixedIp', 'removeFloatingIp'],
  ...['removeSecurityGroup', 'rescue', 'resetNetwork', 'resize', 'restore', 'resume', 'revertResize', 'shelve'],
  ...['shelveOffload', 'suspend', 'trigger_crash_dump', 'unrescue', 'unshelve'],
])

export const serverActionRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/servers/:id/action',
    async handle(call) {
      const [name = '', ...others] = Object.keys((call.body as object | undefined) ?? {})
      const act = others.length === 0 && Object.hasOwn(acts, name) ? acts[name] : undefined
      if (act && call.minor <= (until[name] ?? call.minor)) return act(call, part(call, 'id'))
      if (others.length === 0 && notHere.has(name)) {
        throw new ServiceError('unsupported', `"${name}" is not served here; what is: ${actionNames.join(', ')}`)
      }
      throw new ServiceError(
        'invalid-request',
        `There is no such action: ${name.slice(0, 80) || 'none'}. Available actions: ${actionNames.join(', ')}`,
      )
    },
  },
]
