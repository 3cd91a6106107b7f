import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { type ErrorCode, isServiceError, ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import type { MigrationTarget } from '../machine-migration.ts'
import { objectOf } from './json-lines.ts'

/**
 * What two hypervisors say to each other while a machine goes from one to the other. Each word is a connection of its own: the source sends a
 * line of JSON with the token, then bytes where the word has them, and the target answers with a line. A `prepare` stays open
 * afterwards, and says by its end that its source is gone; a `pipe` is answered by what the pipe leads to.
 */
export type Word =
  | { readonly say: 'prepare'; readonly offer: Offer }
  /** Followed by the file's runs (`file-runs.ts`). */
  | { readonly say: 'layer'; readonly disk: string; readonly layer: number }
  | { readonly say: 'wait' }
  | { readonly say: 'pipe'; readonly to: 'memory' | { readonly disk: string } }
  /** With what the guest wrote to its console, in Base64: it stands still and writes no more. */
  | { readonly say: 'filled'; readonly console: string }
  /** Once said, the guest may go on at the target; said again, it is answered as the first time. */
  | { readonly say: 'commit' }
  | { readonly say: 'done' }

/** The machine as it is at the source. */
export interface Offer {
  readonly shape: string
  /** Base64; it may be mounted in the guest. */
  readonly seedDisc: string | null
  readonly wasPaused: boolean
  /** Of each disk, its layers, the lowest first; the last one is written to. */
  readonly layers: Readonly<Record<string, readonly number[]>>
}

/** A seed's disc of 8 MiB in Base64, and the rest. */
export const MAX_WORD_BYTES = 12 * MiB
const MAX_ANSWER_BYTES = 64 * 1024
const ANSWER_WITHIN_MS = 90_000 // a QEMU that starts on a busy host
const CONNECT_WITHIN_MS = 10_000

/** @throws ServiceError `unavailable` where nobody listens */
export async function say(target: MigrationTarget, word: Word): Promise<Socket> {
  const socket = connect({ path: target.socketPath, allowHalfOpen: true })
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(CONNECT_WITHIN_MS) })
  } catch (error) {
    socket.destroy()
    throw new ServiceError(
      'unavailable',
      'The hypervisor where the machine shall go does not listen; try again.',
      {},
      { cause: error },
    )
  }
  socket.on('error', () => socket.destroy()) // `close` follows
  socket.write(`${JSON.stringify({ token: target.token, ...word })}\n`)
  return socket
}

/**
 * What the target answers.
 * @throws ServiceError that the target answered, with `isAnswer`; `unavailable` where the connection ends without an answer
 */
export async function answer(socket: Socket, signal: AbortSignal, withinMs = ANSWER_WITHIN_MS): Promise<Record<string, unknown>> {
  const object = objectOf(await line(socket, MAX_ANSWER_BYTES, AbortSignal.any([signal, AbortSignal.timeout(withinMs)])))
  if (!object) throw new ServiceError('unavailable', 'What answers is no hypervisor that machines can go to.')
  if (typeof object.code !== 'string') return object
  throw new ServiceError(object.code as ErrorCode, String(object.message), { isAnswer: true })
}

/** @throws ServiceError `unavailable`, `cancelled` */
export async function asked(target: MigrationTarget, word: Word, signal: AbortSignal): Promise<Record<string, unknown>> {
  const socket = await say(target, word)
  try {
    return await answer(socket, signal)
  } finally {
    socket.destroy()
  }
}

export const reply = (socket: Socket, object: object): void => {
  socket.end(`${JSON.stringify(object)}\n`)
  socket.resume() // to its end
}

/** The connection stays. */
export const replyAndHold = (socket: Socket, object: object): void => {
  socket.write(`${JSON.stringify(object)}\n`)
  socket.once('end', () => socket.destroy())
  socket.resume()
}

export const replyError = (socket: Socket, error: unknown): void => {
  const { code, message } = isServiceError(error)
    ? error
    : { code: 'unavailable', message: 'The other hypervisor failed; see its log.' }
  reply(socket, { code, message })
}

/** Whether the target said so, rather than the way to it. */
export const isAnswer = (error: unknown): boolean => isServiceError(error) && error.details.isAnswer === true

/** The first line; what follows stays in the socket. @throws ServiceError `unavailable`, `cancelled` */
export function line(socket: Socket, maxBytes: number, signal: AbortSignal): Promise<string> {
  const parts: Buffer[] = []
  let bytes = 0
  return new Promise((resolve, reject) => {
    const settle = (then: () => void) => {
      socket.off('readable', read).off('end', ended).off('close', ended)
      signal.removeEventListener('abort', aborted)
      then()
    }
    const refuse = (message: string, code: ErrorCode = 'unavailable') => settle(() => reject(new ServiceError(code, message)))
    const ended = () => refuse('The other hypervisor hung up; see whether it runs, and try again.')
    const aborted = () =>
      signal.reason instanceof DOMException && signal.reason.name === 'TimeoutError'
        ? refuse('The other hypervisor did not answer in time; try again.')
        : refuse('The migration was cut short.', 'cancelled')
    const read = () => {
      for (let chunk: Buffer | null = socket.read(); chunk !== null; chunk = socket.read()) {
        const end = chunk.indexOf(0x0a)
        const part = end < 0 ? chunk : chunk.subarray(0, end)
        bytes += part.length
        if (bytes > maxBytes) return refuse('The other hypervisor says more than there is to say.')
        parts.push(part)
        if (end < 0) continue
        const rest = chunk.subarray(end + 1)
        return settle(() => {
          if (rest.length > 0) socket.unshift(rest)
          resolve(Buffer.concat(parts).toString('utf8'))
        })
      }
    }
    if (signal.aborted) return aborted()
    signal.addEventListener('abort', aborted, { once: true })
    socket.on('readable', read).on('end', ended).on('close', ended)
    read()
  })
}

/** Both ways: the end of one way leaves the other open, a break breaks both. @param one and `other`: half open if need be */
export function joined(one: Socket, other: Socket): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on('error', () => from.destroy())
    from.on('close', () => {
      if (!from.readableEnded) to.destroy()
    })
    from.pipe(to)
  }
}

const ASK_AGAIN_MS = 500

/** Asks until the target has answered, however long it is away, and whatever keeps it from an answer. @throws ServiceError `cancelled` */
export async function answered(target: MigrationTarget, word: Word, signal: AbortSignal): Promise<Record<string, unknown>> {
  for (;;) {
    try {
      return await asked(target, word, signal)
    } catch (error) {
      if (signal.aborted) throw error
    }
    await pause(ASK_AGAIN_MS, undefined, { signal }).catch(() => {})
  }
}
