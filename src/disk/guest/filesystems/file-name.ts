/**
 * Names of files are bytes. Where they are UTF-8 they become that text; a byte that is not becomes a lone surrogate, U+DC00 plus the
 * byte, which no UTF-8 decodes to: so every name has exactly one text, and it can be turned back. The way of Python's PEP 383.
 */
const ESCAPE = 0xdc00
const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export function nameOfBytes(bytes: Uint8Array): string {
  try {
    return strict.decode(bytes)
  } catch {
    return escaped(bytes)
  }
}

function escaped(bytes: Uint8Array): string {
  let text = ''
  for (let at = 0; at < bytes.length; ) {
    const length = sequenceBytes(bytes[at]!)
    const part = length > 0 && at + length <= bytes.length ? decoded(bytes.subarray(at, at + length)) : undefined
    text += part ?? String.fromCharCode(ESCAPE + bytes[at]!)
    at += part === undefined ? 1 : length
  }
  return text
}

function decoded(bytes: Uint8Array): string | undefined {
  try {
    return strict.decode(bytes)
  } catch {
    return undefined
  }
}

/** Of a character, by its first byte; 0: none begins so. */
function sequenceBytes(first: number): number {
  if (first < 0x80) return 1
  if (first >= 0xc2 && first < 0xe0) return 2
  if (first >= 0xe0 && first < 0xf0) return 3
  return first >= 0xf0 && first < 0xf5 ? 4 : 0
}

/**
 * A name that is kept as 16-bit units, most of them UTF-16. A surrogate without its pair becomes the three bytes that UTF-8 would have
 * for it, each a lone surrogate as above: so two names that differ do so as texts, too.
 */
export function nameOfUnits(units: Uint16Array): string {
  let text = ''
  for (let at = 0; at < units.length; at += 4096) text += String.fromCharCode(...units.subarray(at, at + 4096))
  if (text.isWellFormed()) return text
  return text.replace(LONE_SURROGATE, (unit) => {
    const code = unit.charCodeAt(0)
    return [0xe0 | (code >>> 12), 0x80 | ((code >>> 6) & 0x3f), 0x80 | (code & 0x3f)]
      .map((byte) => String.fromCharCode(ESCAPE + byte))
      .join('')
  })
}

const LONE_SURROGATE = /\p{Surrogate}/gu // with `u` a pair is one character, and none of these

/** The units that `nameOfUnits` made a text of. */
export function unitsOfName(name: string): Uint16Array {
  const whole = name.isWellFormed()
    ? name
    : name.replace(ESCAPED_SURROGATE, (three) => {
        const [, second = 0, third = 0] = Array.from(three, (unit) => unit.charCodeAt(0) - ESCAPE)
        return String.fromCharCode(0xd000 | ((second & 0x3f) << 6) | (third & 0x3f))
      })
  return Uint16Array.from({ length: whole.length }, (_, at) => whole.charCodeAt(at))
}

const ESCAPED_SURROGATE = /(?<![\ud800-\udbff])\udced[\udca0-\udcbf][\udc80-\udcbf]/g

/** The bytes that `nameOfBytes` made a text of. */
export function bytesOfName(name: string): Uint8Array {
  const parts: Uint8Array[] = []
  let plainFrom = 0
  const flush = (to: number) => to > plainFrom && parts.push(Buffer.from(name.slice(plainFrom, to), 'utf8'))
  for (let at = 0; at < name.length; at += 1) {
    const unit = name.charCodeAt(at)
    if (unit >= 0xd800 && unit < 0xdc00) {
      at += 1 // a pair, which is a character of four bytes
    } else if (unit >= ESCAPE + 0x80 && unit <= ESCAPE + 0xff) {
      flush(at)
      parts.push(Uint8Array.of(unit - ESCAPE))
      plainFrom = at + 1
    }
  }
  flush(name.length)
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
}
