/** A worker thread that unpacks one stream: it waits for input, and for room for output, without giving the thread up. */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { isServiceError } from '../../../base/errors.ts'
import { ByteReader } from '../../packed/byte-reader.ts'
import { unpackXz } from '../../packed/xz.ts'
import { ZEROS } from '../../packed/zeros.ts'
import { unpackBzip2 } from './bzip2.ts'
import { MAX_PIECES, type ThreadInput, type ThreadMessage, type ThreadSettings } from './thread-messages.ts'

const { compression, port, events } = workerData as ThreadSettings & { readonly port: MessagePort }
const decoders = { bzip2: unpackBzip2, xz: unpackXz } as const
let pieces = 0 // given, and not said to be taken yet
const inputs: Uint8Array[] = []
let inputEnded = false

const say = (message: ThreadMessage, transfer: ArrayBuffer[] = []) => parentPort?.postMessage(message, transfer)

/** Waits until the other side has said something; never misses what it says in between. */
function hear(): void {
  for (;;) {
    const heard = Atomics.load(events, 0)
    const received = receiveMessageOnPort(port)?.message as ThreadInput | undefined
    if (!received) {
      Atomics.wait(events, 0, heard)
      continue
    }
    if (received.kind === 'taken') pieces -= 1
    else if (received.bytes) inputs.push(received.bytes)
    else inputEnded = true
    return
  }
}

function nextInput(): Uint8Array | undefined {
  while (inputs.length === 0 && !inputEnded) hear()
  const bytes = inputs.shift()
  if (bytes) say({ kind: 'hungry' }) // for what comes after this
  return bytes
}

say({ kind: 'hungry' })
say({ kind: 'hungry' })
try {
  for (const bytes of decoders[compression](new ByteReader(compression, nextInput))) {
    while (pieces === MAX_PIECES) hear()
    pieces += 1
    if (bytes.buffer === ZEROS.buffer) {
      say({ kind: 'zeros', bytes: bytes.length })
      continue
    }
    const whole = bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice()
    say({ kind: 'piece', bytes: whole }, [whole.buffer as ArrayBuffer])
  }
  say({ kind: 'done' })
} catch (error) {
  if (!isServiceError(error)) throw error
  say({ kind: 'failed', code: error.code, message: error.message, details: error.details })
}
port.close()
