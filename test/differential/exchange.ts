import { request } from 'node:http'
import type { Role } from '../peers/identity-client.ts'

/** One request, the same to every service: `{member.project}` and the like in it are put in by `Side`. */
export interface Step {
  /** Method and path: `GET /v2/images?limit=2`. */
  readonly send: string
  /** Default: member. `nobody` sends no token. */
  readonly as?: Role | 'nobody'
  readonly headers?: Readonly<Record<string, string>>
  readonly json?: unknown
  /** A body that is not JSON, or not well-formed. */
  readonly text?: string
  /** A body of as many bytes, all of them the letter a. */
  readonly bytes?: number
  /** The request is repeated until the answer's body has this value at this path (`tasks.0.status`): for what happens in the background. */
  readonly until?: Readonly<Record<string, unknown>>
}
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
}

/** A service and how the things of a test are called there. */
export interface Side {
  readonly url: string
  /** Address of its identity service, without `/v3`. */
  readonly identityRoot: string
  readonly tokens: Readonly<Record<Role, string>>
  /** What stands in braces in a step → its value on this side. */
  readonly names: Readonly<Record<string, string>>
}

const TIMEOUT_MS = 30_000
const POLLS = 200
const POLL_MS = 100

export async function answerOf(side: Side, step: Step): Promise<Answer> {
  let answer = await sendOnce(side, step)
  for (let polls = 0; step.until && polls < POLLS && !holds(answer, step.until); polls++) {
    await new Promise((next) => setTimeout(next, POLL_MS))
    answer = await sendOnce(side, step)
  }
  return answer
}

function holds({ body }: Answer, wanted: Readonly<Record<string, unknown>>): boolean {
  try {
    const found: unknown = JSON.parse(body.toString())
    const at = (path: string) =>
      path.split('.').reduce((value, key) => (value as Record<string, unknown> | undefined)?.[key], found)
    return Object.entries(wanted).every(([path, value]) => at(path) === value)
  } catch {
    return false
  }
}

function sendOnce(side: Side, step: Step): Promise<Answer> {
  const filled = (text: string) => text.replace(/\{([a-z.]+)\}/g, (whole, name) => side.names[name] ?? whole)
  const [method = 'GET', ...path] = filled(step.send).split(' ')
  const content = bodyOf(step, filled)
  const role = step.as ?? 'member'
  const headers = {
    ...(role === 'nobody' ? {} : { 'x-auth-token': side.tokens[role] }),
    ...(step.json === undefined ? {} : { 'content-type': 'application/json' }),
    ...(content ? { 'content-length': String(content.length) } : {}),
    ...step.headers,
  }
  return new Promise((settle) => {
    const outgoing = request(side.url + path.join(' '), { method, headers, agent: false, timeout: TIMEOUT_MS })
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer in ${TIMEOUT_MS} ms: ${step.send}`)))
    // the connection ends without an answer: status 0
    outgoing.on('error', (error) => settle({ status: 0, headers: {}, body: Buffer.from(String(error)) }))
    outgoing.on('response', (incoming) => {
      const parts: Buffer[] = []
      incoming.on('data', (part) => parts.push(part))
      incoming.on('error', (error) => settle({ status: 0, headers: {}, body: Buffer.from(String(error)) }))
      incoming.on('end', () => {
        const entries = Object.entries(incoming.headers).map(([name, value]) => [name, String(value)])
        settle({ status: incoming.statusCode ?? 0, headers: Object.fromEntries(entries), body: Buffer.concat(parts) })
      })
    })
    outgoing.end(content)
  })
}

function bodyOf(step: Step, filled: (text: string) => string): Buffer | undefined {
  if (step.bytes !== undefined) return Buffer.alloc(step.bytes, 'a')
  if (step.text !== undefined) return Buffer.from(filled(step.text))
  if (step.json !== undefined) return Buffer.from(filled(JSON.stringify(step.json)))
  return undefined
}
