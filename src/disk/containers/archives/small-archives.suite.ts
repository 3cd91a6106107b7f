/** Archives of a few members, made here so that each defect can be put in. */
import { crc32, deflateRawSync } from 'node:zlib'

export interface SmallMember {
  readonly name: string
  readonly type?: string
  readonly body: string | Uint8Array
}

export function tarHeader(name: string, type: string, size: Buffer, encoding: 'utf8' | 'latin1' = 'utf8'): Buffer {
  const block = Buffer.alloc(512)
  block.write(name, 0, encoding)
  block.write('0000644\x000000000\x000000000\0', 100)
  size.copy(block, 124)
  block.write(`00000000000\0        ${type}`, 136)
  block.write('ustar\x0000', 257)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return block
}

export function smallTar(members: readonly SmallMember[], encoding: 'utf8' | 'latin1' = 'utf8'): Buffer {
  const parts = members.flatMap(({ name, type = '0', body }) => {
    const bytes = typeof body === 'string' ? Buffer.from(body) : body
    const size = Buffer.from(`${bytes.length.toString(8).padStart(11, '0')}\0`)
    return [tarHeader(name, type, size, encoding), bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]
  })
  return Buffer.concat([...parts, Buffer.alloc(1024)])
}

export interface ZipDefects {
  /** Of all members, where both headers say the same. */
  readonly flags?: number
  readonly method?: number
  readonly crc?: number
  readonly bytes?: number
  readonly mode?: number
  /** Of the local headers alone. */
  readonly localName?: string
  readonly localBytes?: number
  /** Of the packed data. */
  readonly cut?: number
  readonly tail?: string
  /** The second member is said to be where the first is. */
  readonly overlap?: boolean
  /** Of the end record. */
  readonly count?: number
  readonly disk?: number
  readonly directoryBytes?: number
  readonly directoryOffset?: number
}

export function smallZip(members: readonly SmallMember[], defects: ZipDefects = {}): Buffer {
  const { method = 0, flags = 0, mode = 0o100644 } = defects
  const [local, central]: [Buffer[], Buffer[]] = [[], []]
  let at = 0
  for (const { name, body } of members) {
    const plain = typeof body === 'string' ? Buffer.from(body) : body
    const packed = Buffer.from(method === 8 ? deflateRawSync(plain) : plain)
    const stored = Buffer.concat([packed.subarray(0, packed.length - (defects.cut ?? 0)), Buffer.from(defects.tail ?? '')])
    const header = (fileName: string, bytes: number) => {
      const fields = Buffer.alloc(26)
      fields.writeUInt16LE(20, 0)
      fields.writeUInt16LE(flags, 2)
      fields.writeUInt16LE(method, 4)
      fields.writeUInt32LE(defects.crc ?? crc32(plain), 10)
      fields.writeUInt32LE(method === 0 ? bytes : stored.length, 14)
      fields.writeUInt32LE(bytes, 18)
      fields.writeUInt16LE(Buffer.byteLength(fileName), 22)
      return fields
    }
    const bytes = defects.bytes ?? plain.length
    const localName = defects.localName ?? name
    local.push(Buffer.from('PK\x03\x04'), header(localName, defects.localBytes ?? bytes), Buffer.from(localName), stored)
    const rest = Buffer.alloc(14)
    rest.writeUInt32LE((mode << 16) >>> 0, 6)
    rest.writeUInt32LE(defects.overlap ? 0 : at, 10)
    central.push(Buffer.from('PK\x01\x02\x14\x03'), header(name, bytes), rest, Buffer.from(name))
    at += 30 + Buffer.byteLength(localName) + stored.length
  }
  const directory = Buffer.concat(central)
  const end = Buffer.alloc(22)
  end.write('PK\x05\x06')
  end.writeUInt16LE(defects.disk ?? 0, 4)
  end.writeUInt16LE(defects.count ?? members.length, 8)
  end.writeUInt16LE(defects.count ?? members.length, 10)
  end.writeUInt32LE(defects.directoryBytes ?? directory.length, 12)
  end.writeUInt32LE(defects.directoryOffset ?? at, 16)
  return Buffer.concat([...local, directory, end])
}

/** Of a sparse file: offset and length. */
export type Run = readonly [offset: number, length: number]
const field = (value: number): Buffer => {
  if (value < 8 ** 11) return Buffer.from(`${value.toString(8).padStart(11, '0')}\0`)
  const bytes = Buffer.alloc(12)
  bytes.writeBigUInt64BE(BigInt(value), 4)
  bytes[0] = 0x80
  return bytes
}
const filledUp = (bytes: Uint8Array): Buffer => Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)])

/** A sparse file as GNU tar's own format has it. */
export function oldSparse(bytes: number, runs: readonly Run[], data: Uint8Array): Buffer {
  const map = runs.map(([offset, length]) => Buffer.concat([field(offset), field(length)]))
  const header = tarHeader('disk.raw', 'S', field(data.length))
  header.write('ustar  \0', 257)
  header.set(Buffer.concat(map.slice(0, 4)), 386)
  header[482] = map.length > 4 ? 1 : 0
  header.set(field(bytes), 483)
  header.fill(' ', 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  const blocks = Array.from({ length: Math.max(0, Math.ceil((map.length - 4) / 21)) }, (_, index) => {
    const block = Buffer.alloc(512)
    block.set(Buffer.concat(map.slice(4 + index * 21, 25 + index * 21)))
    block[504] = map.length > 25 + index * 21 ? 1 : 0
    return block
  })
  return Buffer.concat([header, ...blocks, filledUp(data), Buffer.alloc(1024)])
}

/** A record of a pax header: its length counts its own digits. */
export function sparseRecord(key: string, value: number | string): string {
  const rest = ` GNU.sparse.${key}=${value}\n`
  const digits = String(rest.length + String(rest.length).length).length
  return `${rest.length + digits}${rest}`
}

/** A sparse file as pax headers say it. @param text of version 'records': what they say */
export function paxSparse(
  version: '0.0' | '0.1' | '1.0' | 'records',
  bytes: number,
  runs: readonly Run[],
  data: Uint8Array,
  text = '',
  type = 'x',
): Buffer {
  const sized = () => sparseRecord('size', bytes) + sparseRecord('numblocks', runs.length)
  const texts = {
    '0.0': () =>
      sized() + runs.map(([offset, length]) => sparseRecord('offset', offset) + sparseRecord('numbytes', length)).join(''),
    '0.1': () => sized() + sparseRecord('name', 'disk.raw') + sparseRecord('map', runs.join(',')),
    '1.0': () =>
      sparseRecord('major', 1) + sparseRecord('minor', 0) + sparseRecord('name', 'disk.raw') + sparseRecord('realsize', bytes),
    records: () => text,
  }
  const before = version === '1.0' ? filledUp(Buffer.from([runs.length, ...runs.flat(), ''].join('\n'))) : Buffer.alloc(0)
  return smallTar([
    { name: 'pax', type, body: texts[version]() },
    { name: 'disk.raw', body: Buffer.concat([before, data]) },
  ])
}
