import { UsageError } from './exit-codes.ts'
import { safeText } from './safe-text.ts'

/**
 * `200G` → bytes.
 * @param option for the message
 * @param unlimited −1 may be said too
 * @throws UsageError
 */
export function bytesOf(option: string, text: string, { unlimited = false } = {}): number {
  const match = /^(-1|\d+(?:\.\d+)?)([KMGTP]?)(?:i?B)?$/i.exec(text)
  const bytes = match
    ? Math.floor(Number(match[1]) * 1024 ** ['', 'K', 'M', 'G', 'T', 'P'].indexOf(match[2]!.toUpperCase()))
    : Number.NaN
  if (!Number.isSafeInteger(bytes) || (bytes < 0 && !(unlimited && text === '-1'))) {
    const more = unlimited ? ', or -1' : ''
    throw new UsageError(`${option} takes bytes, as 512M or 20G${more}; not "${safeText(text)}"`)
  }
  return bytes
}
