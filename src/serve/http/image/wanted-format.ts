import { ServiceError } from '../../../base/errors.ts'
import type { WantedFormat } from '../../../images/download.ts'

/** Names of the formats in the shared MIME-info database of freedesktop.org, by which a client may ask for them. */
const formatOfType: ReadonlyMap<string, string> = new Map([
  ['application/x-raw-disk-image', 'raw'],
  ['application/x-qemu-disk', 'qcow2'],
  ['application/x-vmdk-disk', 'vmdk'],
  ['application/x-vhd-disk', 'vhd'],
  ['application/x-vhdx-disk', 'vhdx'],
  ['application/x-vdi-disk', 'vdi'],
])
const BYTES = 'application/octet-stream'
const MAX_TYPES = 50

export interface Negotiated {
  /** Absent: the bytes as they are kept. */
  readonly wanted?: WantedFormat
  readonly contentType: string
}

/**
 * The format that a download is asked for in: by the query (`format`, `subformat`), else by `Accept` (RFC 9110, 12.5.1). An `Accept` that
 * knows none of our types is no reason to refuse: Glance never looks at it.
 * @throws ServiceError `invalid-request` for a subformat of nothing
 */
export function wantedFormat(query: Readonly<Record<string, unknown>>, accept: string | undefined): Negotiated {
  const [format, subformat] = [lastOf(query.format), lastOf(query.subformat)]
  if (format !== undefined) return { wanted: { format, subformat }, contentType: BYTES }
  if (subformat !== undefined) {
    throw new ServiceError('invalid-request', 'a subformat belongs to a format: say ?format= as well, vmdk for example')
  }
  const type = preferred(accept)
  const byType = type === undefined ? undefined : formatOfType.get(type)
  return type === undefined || byType === undefined ? { contentType: BYTES } : { wanted: { format: byType }, contentType: type }
}

const lastOf = (value: unknown): string | undefined => {
  const last = Array.isArray(value) ? value.at(-1) : value
  return typeof last === 'string' && last !== '' ? last : undefined
}

/** Of the types that mean something here, the one with the highest quality; the first of several. */
function preferred(accept: string | undefined): string | undefined {
  let best: { readonly type: string; readonly quality: number } | undefined
  for (const part of accept?.split(',', MAX_TYPES) ?? []) {
    const [name, ...parameters] = part.split(';').map((piece) => piece.trim().toLowerCase())
    const quality = Number(parameters.find((each) => each.startsWith('q='))?.slice(2) ?? 1)
    const isKnown = name !== undefined && (formatOfType.has(name) || [BYTES, '*/*', 'application/*'].includes(name))
    if (isKnown && quality > (best?.quality ?? 0)) best = { type: name, quality }
  }
  return best?.type
}
