import { ServiceError } from '../../../base/errors.ts'
import { BLOCK_BYTES } from './tar-header.ts'

/** A member to be written: its bytes are known before they come. */
export interface NewMember {
  /** At most 100 bytes of ASCII. */
  readonly name: string
  readonly bytes: number
  stream(): AsyncIterable<Uint8Array>
}
const LARGEST_OCTAL = 8 ** 11 - 1 // 8 GiB less one; beyond, the size stands in a pax header before

/**
 * A tar archive, POSIX ustar, from its first byte to its last: owner and group 0, mode 0644, time 0, two blocks of zeros at the end. The
 * same members give the same bytes.
 * @throws ServiceError `corrupt` where a member has more or fewer bytes than it says
 */
export async function* writeTar(members: readonly NewMember[]): AsyncGenerator<Uint8Array, void, undefined> {
  for (const { name, bytes, stream } of members) {
    if (bytes > LARGEST_OCTAL) {
      const record = sizeRecord(bytes)
      yield header(`PaxHeaders/${name}`.slice(0, 100), 'x', record.length)
      yield* filledUp(record)
    }
    yield header(name, '0', bytes > LARGEST_OCTAL ? 0 : bytes)
    let given = 0
    for await (const piece of stream()) {
      given += piece.length
      if (given > bytes) break
      yield piece
    }
    if (given !== bytes) {
      throw new ServiceError('corrupt', `"${name}" was to have ${bytes} bytes and has ${given > bytes ? 'more' : given}`, {
        bytes,
        given,
      })
    }
    yield new Uint8Array((BLOCK_BYTES - (bytes % BLOCK_BYTES)) % BLOCK_BYTES)
  }
  yield new Uint8Array(2 * BLOCK_BYTES)
}

/** Bytes of the archive. */
export function tarBytes(members: readonly Pick<NewMember, 'bytes'>[]): number {
  const each = members.map(
    ({ bytes }) => (bytes > LARGEST_OCTAL ? 3 : 1) * BLOCK_BYTES + Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES,
  )
  return each.reduce((sum, bytes) => sum + bytes, 2 * BLOCK_BYTES)
}

function header(name: string, type: 'x' | '0', bytes: number): Uint8Array {
  const block = Buffer.alloc(BLOCK_BYTES)
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`
  block.write(name, 0, 'latin1')
  block.write(octal(0o644, 7) + octal(0, 7) + octal(0, 7) + octal(bytes, 11) + octal(0, 11), 100, 'latin1')
  block.write(`        ${type}`, 148, 'latin1')
  block.write('ustar\x0000', 257, 'latin1')
  block.write(octal(0, 7) + octal(0, 7), 329, 'latin1')
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

/** `length size=bytes\n`, the length being its own as well. */
function sizeRecord(bytes: number): Buffer {
  const rest = ` size=${bytes}\n`
  return Buffer.from(`${rest.length + 2}${rest}`, 'latin1')
}

function* filledUp(bytes: Uint8Array): Generator<Uint8Array> {
  yield bytes
  yield new Uint8Array((BLOCK_BYTES - (bytes.length % BLOCK_BYTES)) % BLOCK_BYTES)
}
