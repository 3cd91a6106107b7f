import { createHash } from 'node:crypto'
import type { Step } from './exchange.ts'

/** Requests in the order in which they are sent: later ones rely on what earlier ones made. */
export interface Scenario {
  readonly name: string
  readonly steps: readonly Step[]
}

export const scenario = (name: string, ...steps: readonly (Step | readonly Step[])[]): Scenario => ({ name, steps: steps.flat() })

const ids = new Map<string, string>()

/**
 * The id of the image that a test calls by this name: the same on both sides. Ids ascend in the order in which they are first
 * asked for: Glance knows moments to the second, and orders by id what it received within one.
 */
export function idOf(name: string): string {
  const known = ids.get(name)
  if (known) return known
  const hex = createHash('sha256').update(`differential ${name}`).digest('hex')
  const first = (ids.size + 1).toString(16).padStart(8, '0')
  const id = [first, hex.slice(8, 12), `4${hex.slice(13, 16)}`, `8${hex.slice(17, 20)}`, hex.slice(20, 32)].join('-')
  ids.set(name, id)
  return id
}

const bare = { disk_format: 'raw', container_format: 'bare' }

/** Creates an image without bytes. */
export const create = (name: string, attributes: Readonly<Record<string, unknown>> = {}, as: Step['as'] = 'member'): Step => ({
  send: 'POST /v2/images',
  as,
  json: { id: idOf(name), name, ...bare, ...attributes },
})

/** Gives it as many bytes. */
export const upload = (name: string, bytes = 1024, as: Step['as'] = 'member'): Step => ({
  send: `PUT /v2/images/${idOf(name)}/file`,
  as,
  bytes,
  headers: { 'content-type': 'application/octet-stream' },
})

/** Creates it and gives it bytes: it is active. */
export const active = (name: string, attributes: Readonly<Record<string, unknown>> = {}): readonly Step[] => [
  create(name, attributes),
  upload(name),
]

export const image = (name: string, rest = ''): string => `/v2/images/${idOf(name)}${rest}`

export const PATCH_TYPE = 'application/openstack-images-v2.1-json-patch'

export const patch = (name: string, changes: unknown, as: Step['as'] = 'member', type = PATCH_TYPE): Step => ({
  send: `PATCH ${image(name)}`,
  as,
  text: typeof changes === 'string' ? changes : JSON.stringify(changes),
  headers: { 'content-type': type },
})

export const get = (path: string, as: Step['as'] = 'member', headers: Readonly<Record<string, string>> = {}): Step => ({
  send: `GET ${path}`,
  as,
  headers,
})

export const send = (method: string, path: string, as: Step['as'] = 'member', json?: unknown): Step => ({
  send: `${method} ${path}`,
  as,
  ...(json === undefined ? {} : { json }),
})
