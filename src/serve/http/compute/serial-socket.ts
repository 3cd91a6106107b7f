import type { ConsoleEnd, ConsoleSession } from '../../../instances/console/serial-consoles.ts'
import type { InstancePorts } from '../../../instances/ports.ts'
import { closeCode } from '../../websocket/frames.ts'
import { answerHandshake } from '../../websocket/handshake.ts'
import { WebSocketStream } from '../../websocket/web-socket-stream.ts'
import type { Upgrade } from '../api.ts'
import { PREFIX } from './route.ts'

/** Below `/compute`. */
export const SERIAL_PATH = '/serial/'
/** Nova's, and websockify's: each frame is bytes of the port. */
export const SERIAL_PROTOCOL = 'binary'

/** What the client is told when its session ends; 4000 and up are for applications (RFC 6455, section 7.4.2). */
const farewells: Readonly<Record<ConsoleEnd, readonly [code: number, reason: string]>> = {
  left: [closeCode.normal, ''],
  replaced: [4001, 'another console of this instance was opened'],
  'machine-off': [closeCode.normal, 'the machine went off'],
  stopping: [closeCode.goingAway, 'the service is stopping: ask for another console'],
}

/** The serial port of a machine over a WebSocket, for whoever has a token: the address says `?token=…`, as Nova's proxy has it. */
export function serialSocket({ consoles }: Pick<InstancePorts, 'consoles'>): Upgrade {
  return {
    path: PREFIX + SERIAL_PATH,
    async accept(request, socket, head) {
      const answer = answerHandshake(request, SERIAL_PROTOCOL)
      const token = new URLSearchParams(request.url?.split('?')[1]).get('token') ?? ''
      const session = await consoles.join(token)
      if (socket.destroyed) session.end('left')
      else {
        socket.write(answer)
        join(session, new WebSocketStream(socket, { role: 'server', head }))
      }
      return { instance: session.instanceId, user: session.userId }
    },
    close: () => consoles.close(),
  }
}

const nothing = new Uint8Array()
const LAST_WORDS_MS = 5000

/** Either side waits for the other: what is not taken at one end is not read at the other. */
function join(session: ConsoleSession, client: WebSocketStream): void {
  session.serial.pipe(client, { end: false })
  client.pipe(session.serial, { end: false })
  client.once('end', () => session.end('left'))
  client.once('close', () => session.end('left'))
  void session.ended.then((why) => {
    session.serial.unpipe(client)
    client.unpipe(session.serial)
    const goodbye = () => client.closeWith(...farewells[why])
    if (why !== 'machine-off') return goodbye()
    client.write(nothing, goodbye) // after the last words of the guest
    setTimeout(goodbye, LAST_WORDS_MS).unref() // from who does not take them, it is let go without
  })
}
