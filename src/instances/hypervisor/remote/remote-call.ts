import { once } from 'node:events'
import { connect } from 'node:net'
import { ServiceError } from '../../../base/errors.ts'
import type { HydrateOptions } from '../disk-layers.ts'
import { HostAway } from '../host-away.ts'
import { type Frame, FrameLink } from './frames.ts'
import { receiveStream, sendStream } from './streams.ts'
import { errorOf, type Failure, type Opening, type Question } from './words.ts'

type Progress = Parameters<NonNullable<HydrateOptions['onProgress']>>[0]
const CONNECT_WITHIN_MS = 10_000

/** What the agent may ask of a call's caller. */
export interface Parts {
  /** The memory to go on from. */
  readonly open?: (signal: AbortSignal) => AsyncIterable<Uint8Array>
  readonly sink?: (body: AsyncIterable<Uint8Array>) => Promise<void>
  readonly whileStill?: () => Promise<void>
  readonly onProgress?: (progress: Progress) => void
}

/** @throws HostAway where no agent listens */
export async function openLink(socketPath: string, opening: Opening): Promise<FrameLink> {
  const socket = connect({ path: socketPath })
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(CONNECT_WITHIN_MS) })
  } catch (error) {
    socket.destroy()
    throw new HostAway('The agent of the host does not answer; see whether it runs.', { cause: error })
  }
  const link = new FrameLink(socket)
  await link.send(opening)
  return link
}

/** @throws ServiceError that the agent answered with; HostAway where it hung up instead */
export async function answerOf(link: FrameLink): Promise<Frame['head']> {
  const frame = await link.next()
  if (!frame) throw hungUp()
  if (frame.head.failed) throw errorOf(frame.head.failed as Failure)
  return frame.head
}

/** One call that may last, from its connection's first word to its answer. */
export class RemoteCall {
  readonly #link: FrameLink
  readonly #key: string
  readonly #parts: Parts
  readonly #openStream: (opening: Opening) => Promise<FrameLink>
  /** Ends its parts. */
  readonly #over = new AbortController()
  /** What a part failed with. */
  #problem: { readonly error: unknown } | null = null
  #sunk: Promise<void> = Promise.resolve()

  constructor(link: FrameLink, key: string, parts: Parts, openStream: (opening: Opening) => Promise<FrameLink>) {
    this.#link = link
    this.#key = key
    this.#parts = parts
    this.#openStream = openStream
  }

  /** Settles with the last word of the agent, when its parts have ended, too. @throws what a part threw, or the agent answered */
  async answer(signal: AbortSignal): Promise<Frame['head']> {
    const cut = () => {
      this.#over.abort(signal.reason)
      void this.#link.send({ isEnough: true }).catch(() => {})
    }
    if (signal.aborted) cut()
    signal.addEventListener('abort', cut, { once: true })
    try {
      return await this.#conversation()
    } finally {
      signal.removeEventListener('abort', cut)
      this.#over.abort()
      await this.#sunk
      this.#link.destroy()
    }
  }

  async #conversation(): Promise<Frame['head']> {
    for (let frame = await this.#link.next(); frame; frame = await this.#link.next()) {
      const { ask, progress, failed } = frame.head
      if (progress) this.#parts.onProgress?.(progress as Progress)
      else if (ask) this.#begin(ask as Question)
      else if (!failed) return frame.head
      else {
        const failure = failed as Failure
        await this.#sunk
        throw failure.isYours && this.#problem ? this.#problem.error : errorOf(failure)
      }
    }
    throw hungUp()
  }

  #begin(question: Question): void {
    const part = this.#part(question)
    const answered = part.then(
      () => ({ answer: question }),
      (error: unknown) => {
        this.#problem ??= { error }
        return { answer: question, hasFailed: true }
      },
    )
    const told = answered.then((answer) => this.#link.send(answer).catch(() => {}))
    if (question !== 'memory') this.#sunk = Promise.all([this.#sunk, told]).then(() => {})
  }

  async #part(question: Question): Promise<void> {
    const { open, sink, whileStill } = this.#parts
    if (question === 'still') return whileStill?.()
    const link = await this.#openStream({ say: 'stream', key: this.#key })
    try {
      if (question === 'memory' && open) await sendStream(link, open(this.#over.signal))
      else if (question === 'sink' && sink) await sink(receiveStream(link))
      else throw new ServiceError('unsupported', 'The agent of the host asks for what the call has not.')
    } finally {
      if (question === 'sink') link.destroy()
    }
  }
}

const hungUp = (): HostAway =>
  new HostAway('The agent of the host has hung up, and nobody knows how far it came; see how the machine stands.')
