import { ServiceError } from './errors.ts'

interface Field {
  readonly offset: number
  readonly bytes: number
  read(view: DataView, at: number): number
}
const field =
  (bytes: number, read: Field['read']) =>
  (offset: number): Field => ({ offset, bytes, read })
export const u8 = field(1, (view, at) => view.getUint8(at))
export const u16be = field(2, (view, at) => view.getUint16(at))
export const u32be = field(4, (view, at) => view.getUint32(at))
export const u32le = field(4, (view, at) => view.getUint32(at, true))
/** 64-bit field as a `number`; a value above 2^53 − 1 is refused here, once, rather than rounded later. */
export const u64be = field(8, (view, at) => {
  const value = view.getBigUint64(at)
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new ServiceError('invalid-image', 'value exceeds 2^53', { at })
  return Number(value)
})

/** Names the fields of an on-disk record. Overlapping offsets — the usual typing slip — throw at load time. */
export function struct<Name extends string>(what: string, fields: Record<Name, Field>) {
  const inOrder = (Object.entries(fields) as [Name, Field][]).sort((a, b) => a[1].offset - b[1].offset)
  let end = 0
  for (const [name, { offset, bytes }] of inOrder) {
    if (offset < end) throw new Error(`${what}: field "${name}" overlaps the one before it`)
    end = offset + bytes
  }
  return {
    bytes: end,
    parse(bytes: Uint8Array): Record<Name, number> {
      if (bytes.length < end) {
        throw new ServiceError('invalid-image', `${what} is truncated`, { needBytes: end, haveBytes: bytes.length })
      }
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      return Object.fromEntries(inOrder.map(([name, f]) => [name, f.read(view, f.offset)])) as Record<Name, number>
    },
  }
}
