import { ServiceError } from '../../../base/errors.ts'

/** Bytes that are read from front to back. */
export interface Forward {
  /** The next `count` bytes, fewer at the end. */
  take(count: number): Promise<Uint8Array>
  /** @returns false where they end before */
  skip(count: number): Promise<boolean>
}
export interface CpioEntry {
  readonly path: string
  readonly mode: number
  readonly bytes: number
}

/** Linux Documentation/driver-api/early-userspace/buffer-format.rst: "newc", with and without checksums. */
const HEADER_BYTES = 110
const MAX_NAME = 4096 // PATH_MAX
const TRAILER = 'TRAILER!!!'

/**
 * The entries of one archive, up to its trailer; their contents are passed over.
 * @throws ServiceError `invalid-image`
 */
export async function* cpioEntries(input: Forward, maxEntries: number): AsyncGenerator<CpioEntry> {
  for (let count = 0; ; count += 1) {
    if (count >= maxEntries) throw refuse(`more than ${maxEntries} entries`)
    const header = Buffer.from(await input.take(HEADER_BYTES)).toString('latin1')
    if (header.length < HEADER_BYTES) throw refuse(`it ends in entry ${count}, without a trailer`)
    if (!/^07070[12][0-9A-Fa-f]{104}$/.test(header))
      throw refuse(`entry ${count} does not begin with 070701 and hexadecimal digits`)
    const field = (index: number) => Number.parseInt(header.slice(6 + index * 8, 14 + index * 8), 16)
    const [mode, bytes, nameBytes] = [field(1), field(6), field(11)]
    if (nameBytes === 0 || nameBytes > MAX_NAME) throw refuse(`entry ${count} has a name of ${nameBytes} bytes (c_namesize)`)
    const name = Buffer.from(await input.take(nameBytes))
    const path = name.toString('utf8', 0, nameBytes - 1)
    if (name.length < nameBytes) throw refuse(`it ends in the name of entry ${count}`)
    if (path === TRAILER) {
      await input.skip(padding(HEADER_BYTES + nameBytes))
      return
    }
    const isWhole = (await input.skip(padding(HEADER_BYTES + nameBytes))) && (await input.skip(bytes + padding(bytes)))
    if (!isWhole) throw refuse(`it ends in ${path}`)
    yield { path, mode, bytes }
  }
}

const padding = (bytes: number): number => (4 - (bytes % 4)) % 4

const refuse = (problem: string): ServiceError =>
  new ServiceError('invalid-image', `the cpio archive is damaged: ${problem}`, { reason: 'malformed' })
