/** Bytes within JSON: `{ "$bytes": Base64 }`. Nothing that is sent has a field of that name. */
const BYTES = '$bytes'

/** A copy of plain values whose bytes JSON can hold. */
export function packed(value: unknown): unknown {
  if (value instanceof Uint8Array) return { [BYTES]: Buffer.from(value).toString('base64') }
  if (Array.isArray(value)) return value.map(packed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, packed(inner)]))
}

/** What `packed` was given. */
export function unpacked(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(unpacked)
  if (typeof value !== 'object' || value === null) return value
  const fields = Object.entries(value)
  const bytes = fields.length === 1 && fields[0]![0] === BYTES ? fields[0]![1] : undefined
  if (typeof bytes === 'string') return new Uint8Array(Buffer.from(bytes, 'base64'))
  return Object.fromEntries(fields.map(([name, inner]) => [name, unpacked(inner)]))
}
