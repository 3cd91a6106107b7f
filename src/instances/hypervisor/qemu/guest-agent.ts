import { connect, type Socket } from 'node:net'
import { KiB } from '../../../base/units.ts'
import { isObject, objectOf } from './json-lines.ts'

/**
 * The client of the agent in a guest. What answers is the guest, so nothing that it says is believed beyond what was asked, nothing
 * is waited for without end, and nothing is kept without bound. Source: QEMU docs/interop/qemu-ga, qga/qapi-schema.json.
 */
const MAX_LINE_BYTES = 64 * KiB
/** Answers to somebody before us, garbage, and the one that was asked for. */
const MAX_LINES = 100
/** "0xFF is never part of UTF-8": `guest-sync-delimited`, by which one finds the start of an answer. */
const SENTINEL = 0xff
const MAX_ERROR_CHARACTERS = 200

/** It was heard, and would not or could not. */
export class AgentRefusal extends Error {}

/** @throws Error, for people: the agent is not there, does not answer in time, refuses, or answers nonsense */
export async function askAgent(
  path: string,
  command: string,
  withinMs: number,
  given?: Readonly<Record<string, unknown>>,
): Promise<unknown> {
  const socket = connect({ path })
  const over = Promise.withResolvers<never>()
  over.promise.catch(() => {}) // it is raced with below
  const end = (why: string) => {
    over.reject(new Error(why))
    socket.destroy()
  }
  socket.on('error', (error) => end(`the agent's channel: ${error.message}`))
  socket.on('close', () => end("the agent's channel was closed"))
  const late = setTimeout(end, withinMs, `the guest's agent did not answer "${command}" in time`)
  const lines = new Lines(socket, end)
  const next = () => Promise.race([lines.next(), over.promise])
  try {
    const id = Math.floor(Math.random() * 2 ** 31)
    // what an earlier client left half-sent in the agent's parser ends at the sentinel
    socket.write(Buffer.of(SENTINEL))
    socket.write(`${JSON.stringify({ execute: 'guest-sync-delimited', arguments: { id } })}\n`)
    while ((await next()).return !== id);
    lines.isInSync = true
    socket.write(`${JSON.stringify({ execute: command, arguments: given })}\n`)
    const answer = await next()
    if ('return' in answer) return answer.return
    const says = isObject(answer.error) && typeof answer.error.desc === 'string' ? answer.error.desc : 'no reason given'
    throw new AgentRefusal(
      `the guest's agent refused "${command}": ${says.replaceAll(/\p{Cc}/gu, ' ').slice(0, MAX_ERROR_CHARACTERS)}`,
    )
  } finally {
    clearTimeout(late)
    socket.destroy()
  }
}

/** Objects, one a line. Before we are in sync, what is none is skipped. */
class Lines {
  isInSync = false
  readonly #end: (why: string) => void
  #rest = Buffer.alloc(0)
  #count = 0
  readonly #read: Record<string, unknown>[] = []
  #wanted: ((object: Record<string, unknown>) => void) | null = null

  /** @param end told why no more is read; it destroys the socket */
  constructor(socket: Socket, end: (why: string) => void) {
    this.#end = end
    socket.on('data', (bytes) => this.#take(bytes))
  }

  next(): Promise<Record<string, unknown>> {
    const first = this.#read.shift()
    if (first) return Promise.resolve(first)
    return new Promise((done) => {
      this.#wanted = done
    })
  }

  #take(bytes: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, bytes])
    for (let end = this.#rest.indexOf(0x0a); end >= 0 && this.#count <= MAX_LINES; end = this.#rest.indexOf(0x0a)) {
      this.#count += 1
      this.#takeLine(this.#rest.subarray(0, end))
      this.#rest = this.#rest.subarray(end + 1)
    }
    if (this.#count <= MAX_LINES && this.#rest.length <= MAX_LINE_BYTES) return
    this.#end("the guest's agent says more than any answer has")
  }

  #takeLine(line: Buffer): void {
    const text = line.subarray(line.lastIndexOf(SENTINEL) + 1)
    const object = text.length <= MAX_LINE_BYTES ? objectOf(text.toString('utf8')) : undefined
    if (object) this.#give(object)
    else if (this.isInSync) this.#end("the guest's agent answered nonsense")
  }

  #give(object: Record<string, unknown>): void {
    const wanted = this.#wanted
    this.#wanted = null
    if (wanted) wanted(object)
    else this.#read.push(object)
  }
}
