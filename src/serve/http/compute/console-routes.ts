import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { bodyOf } from '../json-body.ts'
import { type Call, ok, part, type Route } from './route.ts'
import { strict } from './schemas.ts'
import { SERIAL_PATH } from './serial-socket.ts'

/** The kinds of each protocol in Nova, of which serial ports are served here. */
const kinds: Readonly<Record<string, readonly string[]>> = {
  vnc: ['novnc', 'xvpvnc'],
  spice: ['spice-html5'],
  rdp: ['rdp-html5'],
  mks: ['webmks'],
  serial: ['serial'],
}
const oneOf = (names: readonly string[]) =>
  Type.Union(
    names.map((name) => Type.Literal(name)),
    { description: names.join(', ') },
  )
const body = bodyOf(
  Type.Object(
    {
      remote_console: Type.Object({ protocol: oneOf(Object.keys(kinds)), type: oneOf(Object.values(kinds).flat()) }, strict),
    },
    strict,
  ),
)

export const consoleRoutes: readonly Route[] = [
  {
    method: 'POST',
    path: '/servers/:id/remote-consoles',
    since: 6,
    async handle(call) {
      const { protocol, type } = body(call.body).remote_console
      if (!kinds[protocol]?.includes(type))
        throw new ServiceError('invalid-request', `${type} is no console of protocol ${protocol}`)
      if (type !== 'serial') {
        throw new ServiceError('invalid-request', `Unavailable console type ${type}: instances here have a serial console only`)
      }
      return ok({ remote_console: { protocol, type, url: await serialUrl(call, part(call, 'id')) } })
    },
  },
]

/** Where the serial console of an instance is opened, once: the token in it is a secret. */
export async function serialUrl({ ports, caller, bookmarks }: Call, id: string): Promise<string> {
  const token = await ports.consoles.issue(caller, id)
  return `${bookmarks.replace(/^http/, 'ws')}${SERIAL_PATH}?token=${token}`
}
