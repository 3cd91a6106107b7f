import type { Answer, Side } from './exchange.ts'

/** Where two answers differ: `status`, `header etag`, `body images.0.size` … */
export interface Difference {
  readonly where: string
  readonly glance: string
  readonly imprint: string
}

/** Headers of the transport and of the moment: they say nothing about the API. */
const ignoredHeaders = new Set(['date', 'connection', 'keep-alive', 'transfer-encoding', 'content-length', 'server', 'vary'])

export function compare(glance: Answer, imprint: Answer, sides: { readonly glance: Side; readonly imprint: Side }): Difference[] {
  const differences: Difference[] = []
  const add = (where: string, one: unknown, other: unknown) => {
    if (show(one) !== show(other)) differences.push({ where, glance: show(one), imprint: show(other) })
  }
  add('status', glance.status, imprint.status)
  if (differences.length > 0) return differences // one accepts and the other refuses: the rest follows from it
  const [theirs, ours] = [headersOf(glance, sides.glance), headersOf(imprint, sides.imprint)]
  for (const name of new Set([...Object.keys(theirs), ...Object.keys(ours)])) add(`header ${name}`, theirs[name], ours[name])
  // the wording of a refusal is each service's own
  if (glance.status >= 400 && imprint.status >= 400) return differences
  compareBodies(bodyOf(glance, sides.glance), bodyOf(imprint, sides.imprint), 'body', add)
  return differences
}

/** `charset=utf-8` on JSON says nothing: JSON has no other. */
const withoutCharset = (value: string) => value.replace(/^(application\/json); charset=utf-8$/i, '$1')

function headersOf({ headers, body }: Answer, side: Side): Record<string, string> {
  // Glance labels bodies that are empty
  const says = (name: string) => !ignoredHeaders.has(name) && (name !== 'content-type' || body.length > 0)
  const kept = Object.entries(headers).filter(([name]) => says(name))
  return Object.fromEntries(kept.map(([name, value]) => [name, withoutCharset(normalText(value, side))]))
}

function bodyOf({ headers, body }: Answer, side: Side): unknown {
  if (!headers['content-type']?.includes('json')) return body.toString('latin1')
  try {
    return JSON.parse(normalText(body.toString(), side), inOrder)
  } catch {
    return body.toString()
  }
}

function compareBodies(
  theirs: unknown,
  ours: unknown,
  at: string,
  add: (where: string, one: unknown, other: unknown) => void,
): void {
  if (isRecord(theirs) && isRecord(ours)) {
    const keys = new Set([...Object.keys(theirs), ...Object.keys(ours)])
    for (const key of keys) compareBodies(theirs[key], ours[key], `${at}.${key}`, add)
  } else if (Array.isArray(theirs) && Array.isArray(ours)) {
    const length = Math.max(theirs.length, ours.length)
    for (let index = 0; index < length; index++) compareBodies(theirs[index], ours[index], `${at}.${index}`, add)
  } else {
    add(at, theirs, ours)
  }
}

/** Tags are a set: Glance gives them in any order. */
const inOrder = (key: string, value: unknown): unknown =>
  key === 'tags' && Array.isArray(value) && value.every((tag) => typeof tag === 'string') ? value.toSorted() : value

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** What is called differently on each side gets one name: addresses, projects, users; moments and fresh ids lose their value. */
function normalText(text: string, side: Side): string {
  let normal = text.replaceAll(side.url, '<service>').replaceAll(side.identityRoot, '<identity>')
  for (const [name, value] of Object.entries(side.names))
    if (!name.endsWith('.port')) normal = normal.replaceAll(value, `<${name}>`)
  return normal
    .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?/g, '<time>')
    .replace(/req-[0-9a-f-]{36}/g, '<request>')
    .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, '<uuid>')
}

const show = (value: unknown): string => (value === undefined ? 'absent' : JSON.stringify(value).slice(0, 300))
