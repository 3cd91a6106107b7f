import type { Readable, Writable } from 'node:stream'
import type { WebSocketStream } from '../../serve/websocket/web-socket-stream.ts'

/** Ctrl-], as of telnet and virsh. */
const LEAVE = 0x1d
/** After the end of an input that is no terminal: an answer that takes longer is not waited for. */
const QUIET_MS = 1000
/**
 * What a guest may have left on: the alternate screen, a hidden cursor, reports of mouse, focus and pasting, keypad and colours.
 * Source: XTerm Control Sequences, DECSET and SGR.
 */
const RESTORE = '\x1b[?1049l\x1b[?25h\x1b[?1000;1002;1003;1004;1006;2004l\x1b[?1l\x1b>\x1b[0m'

export interface Terminal {
  readonly input: Readable & { readonly isTTY?: boolean; setRawMode?(raw: boolean): unknown }
  readonly output: Writable & { readonly isTTY?: boolean }
}

/**
 * Joins a terminal to a console, every key going to the guest, until either ends. The terminal is as it was afterwards, also where
 * the program fails. An input that is no terminal may end, and the guest then has a second for each thing that it still says.
 * @param greet says so, when every key goes to the guest
 * @returns whether the user left by the key for that; else `stream.saidClose` tells why
 */
export async function attachTerminal(
  stream: WebSocketStream,
  { input, output }: Terminal,
  greet: () => void,
  signal: AbortSignal,
): Promise<boolean> {
  const isTerminal = input.isTTY === true
  const restore = () => {
    if (isTerminal) input.setRawMode?.(false)
    if (output.isTTY) output.write(RESTORE)
  }
  let hasLeft = false
  let quiet: NodeJS.Timeout | undefined
  const leave = () => stream.end()
  const onInput = (bytes: Buffer) => {
    const at = isTerminal ? bytes.indexOf(LEAVE) : -1
    const typed = at < 0 ? bytes : bytes.subarray(0, at)
    if (typed.length > 0 && !stream.write(typed)) {
      input.pause()
      stream.once('drain', () => input.resume())
    }
    if (at < 0) return
    hasLeft = true
    leave()
  }
  const onInputEnd = () => {
    quiet = setTimeout(leave, QUIET_MS)
  }
  const onOutput = (bytes: Buffer) => {
    quiet?.refresh()
    if (output.write(bytes)) return
    stream.pause()
    output.once('drain', () => stream.resume())
  }
  process.once('exit', restore)
  signal.addEventListener('abort', leave, { once: true })
  try {
    if (isTerminal) input.setRawMode?.(true)
    greet()
    const closed = new Promise<void>((done) => stream.once('close', () => done()))
    stream.on('data', onOutput)
    input.on('data', onInput).once('end', onInputEnd).resume()
    await closed
    return hasLeft
  } finally {
    clearTimeout(quiet)
    input.off('data', onInput).off('end', onInputEnd).pause()
    signal.removeEventListener('abort', leave)
    process.removeListener('exit', restore)
    restore()
  }
}
