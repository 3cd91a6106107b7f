import { ServiceError } from '../../base/errors.ts'
import { connectWebSocket } from '../../serve/websocket/connect.ts'
import { closeCode } from '../../serve/websocket/frames.ts'
import type { ComputeClient, Instance } from '../client/compute-client.ts'
import { cancelled } from '../client/http-client.ts'
import type { Output } from '../output.ts'
import { safeText } from '../safe-text.ts'
import { attachTerminal, type Terminal } from './attach-terminal.ts'

/** What was said before is shown, so that a prompt that waits is seen. */
const LINES_BEFORE = 20
const REPLACED = 4001

/**
 * Sits down at an instance's serial console until the user leaves or it ends.
 * @throws ServiceError `conflict` where another console took it; `unavailable` where the service or the line went; `cancelled`
 */
export async function openConsole(
  compute: ComputeClient,
  { id, name }: Pick<Instance, 'id' | 'name'>,
  terminal: Terminal,
  out: Output,
  signal: AbortSignal,
): Promise<void> {
  const url = await compute.consoleUrl(id)
  const isWatched = terminal.input.isTTY === true
  const before = isWatched ? await compute.consoleLog(id, LINES_BEFORE) : ''
  const stream = await connectWebSocket(url, 'binary', signal)
  const greet = () => {
    if (isWatched) out.note(`The console of ${safeText(name)}; Ctrl-] leaves it.`)
    terminal.output.write(before)
  }
  const hasLeft = await attachTerminal(stream, terminal, greet, signal)
  if (signal.aborted) throw cancelled()
  if (hasLeft || (!isWatched && stream.saidClose?.code === closeCode.normal)) return
  if (isWatched) out.note('')
  const { code, reason } = stream.saidClose ?? { code: closeCode.none, reason: 'the line broke off' }
  const why = safeText(reason)
  if (code === REPLACED) throw new ServiceError('conflict', `${why}; this one was closed`)
  if (code !== closeCode.normal) throw new ServiceError('unavailable', `the console ended: ${why}`)
  out.note(`The console ended${why ? `: ${why}` : ''}.`)
}
