import { ServiceError } from './errors.ts'

/** One field of an on-disk record: where it lies and how its bytes become a value, and back. */
export interface Field<Value> {
  readonly offset: number // bytes from the start of the record
  readonly bytes: number
  read(view: DataView, at: number): Value
  write(view: DataView, at: number, value: Value): void
}
type NumberField = (offset: number) => Field<number>

const number =
  (bytes: number, read: Field<number>['read'], write: Field<number>['write']): NumberField =>
  (offset) => ({ offset, bytes, read, write })

export const u8 = number(
  1,
  (view, at) => view.getUint8(at),
  (view, at, value) => view.setUint8(at, value),
)
const u16 = (little: boolean) =>
  number(
    2,
    (view, at) => view.getUint16(at, little),
    (view, at, value) => view.setUint16(at, value, little),
  )
const u32 = (little: boolean) =>
  number(
    4,
    (view, at) => view.getUint32(at, little),
    (view, at, value) => view.setUint32(at, value, little),
  )
/** 64-bit field as a `number`; `parse` refuses values above 2^53 − 1 once, so that nobody rounds them later. */
const u64 = (little: boolean) =>
  number(
    8,
    (view, at) => Number(view.getBigUint64(at, little)),
    (view, at, value) => view.setBigUint64(at, BigInt(value), little),
  )

export const u16be = u16(false)
export const u16le = u16(true)
export const u32be = u32(false)
export const u32le = u32(true)
export const u64be = u64(false)
export const u64le = u64(true)

/** `count` bytes as they are: a magic, an id. What is parsed is a copy. */
export const bytes = (offset: number, count: number): Field<Uint8Array> => ({
  offset,
  bytes: count,
  read: (view, at) => new Uint8Array(view.buffer, view.byteOffset + at, count).slice(),
  write: (view, at, value) => new Uint8Array(view.buffer, view.byteOffset + at, count).set(value),
})

/** The record that a `struct` describes, as an object. */
export type Parsed<Fields> = { readonly [Name in keyof Fields]: Fields[Name] extends Field<infer Value> ? Value : never }

export interface Struct<Fields> {
  /** Bytes from the start of the record to the end of its last field. */
  readonly bytes: number
  /** @throws ServiceError `invalid-image` when the input is short or a 64-bit value does not fit a number */
  parse(input: Uint8Array): Parsed<Fields>
  /** The record as bytes; what no field covers is zero. */
  build(values: Parsed<Fields>): Uint8Array
}

/** Names the fields of an on-disk record. Overlapping offsets, the usual typing slip, throw when the module loads. */
// biome-ignore lint/suspicious/noExplicitAny: a record mixes fields of any value type; Parsed gives each its own back
export function struct<Fields extends Readonly<Record<string, Field<any>>>>(what: string, fields: Fields): Struct<Fields> {
  const inOrder = Object.entries(fields).sort((a, b) => a[1].offset - b[1].offset)
  let end = 0
  for (const [name, { offset, bytes: count }] of inOrder) {
    if (offset < end) throw new Error(`${what}: field "${name}" overlaps the one before it`)
    end = offset + count
  }
  return {
    bytes: end,
    parse(input) {
      if (input.length < end) {
        throw new ServiceError('invalid-image', `the ${what} is cut off: it needs ${end} bytes and has ${input.length}`, {
          reason: 'truncated',
          needBytes: end,
          haveBytes: input.length,
        })
      }
      const view = new DataView(input.buffer, input.byteOffset, input.byteLength)
      const read = ([name, f]: (typeof inOrder)[number]): [string, unknown] => {
        const value: unknown = f.read(view, f.offset)
        if (typeof value !== 'number' || Number.isSafeInteger(value)) return [name, value]
        throw new ServiceError('invalid-image', `the ${what} has a value of 2^53 or more in its field "${name}"`, {
          reason: 'malformed',
          field: name,
        })
      }
      return Object.fromEntries(inOrder.map(read)) as Parsed<Fields>
    },
    build(values) {
      const output = new Uint8Array(end)
      const view = new DataView(output.buffer)
      for (const [name, f] of inOrder) f.write(view, f.offset, values[name as keyof Fields])
      return output
    },
  }
}
