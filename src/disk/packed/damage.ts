import { type ErrorDetails, ServiceError } from '../../base/errors.ts'

/** Why compressed data were refused: stable words for clients, in `details.reason`. */
export type PackedRefusal = 'malformed' | 'truncated' | 'unsupported' | 'amplification' | 'nested'

export const refusePacked = (
  compression: string,
  reason: PackedRefusal,
  problem: string,
  details: ErrorDetails = {},
): ServiceError =>
  new ServiceError(
    reason === 'unsupported' ? 'unsupported' : 'invalid-image',
    reason === 'unsupported' ? `${compression}: ${problem}` : `the file is damaged: its ${compression} data: ${problem}`,
    { format: compression, reason, ...details },
  )

/** What compressed data may cost that is not in proportion to what comes out of them: streams, blocks and frames with little in them. */
export class PartCount {
  readonly #compression: string
  readonly #what: string
  #parts = 0

  constructor(compression: string, what: string) {
    this.#compression = compression
    this.#what = what
  }

  /** One more. @param givenBytes what came out until now. @throws ServiceError `invalid-image` */
  add(givenBytes: number): void {
    this.#parts += 1
    if (this.#parts <= FREE_PARTS + givenBytes / MIN_PART_BYTES) return
    const problem = `${this.#parts} ${this.#what} hold ${givenBytes} bytes; beyond ${FREE_PARTS}, each must bring ${MIN_PART_BYTES} on average`
    throw refusePacked(this.#compression, 'amplification', problem)
  }
}
const FREE_PARTS = 4096
const MIN_PART_BYTES = 1024 // tools that pack in parallel make parts of 64 KiB at least
