import { formatBytes } from '../base/units.ts'
import type { Output } from './output.ts'

/** What a transfer says of itself now and then. */
export interface TransferState {
  readonly phase: string
  /** Bytes dealt with, and of how many; null where nobody knows. */
  readonly doneBytes: number
  readonly totalBytes: number | null
  /** Bytes that went over the line. */
  readonly movedBytes: number
  /** Bytes dealt with in other ways, by what was done with them; people are told of them in place of what was sent. */
  readonly counts?: Readonly<Record<string, number>>
}

const TERMINAL_EVERY_MS = 100
const EVENT_EVERY_MS = 1000
/** Speed is that of the last seconds, so that the time left follows the line as it is now. */
const WINDOW_MS = 5000

/** Shows how a transfer goes: a line written over itself on a terminal, with `--json` a document a second on stderr. */
export class Progress {
  readonly #out: Output
  readonly #now: () => number
  #samples: { readonly at: number; readonly bytes: number }[] = []
  #phase: string | undefined
  #shownAt = Number.NEGATIVE_INFINITY

  constructor(out: Output, now: () => number = () => performance.now()) {
    this.#out = out
    this.#now = now
  }

  show(state: TransferState): void {
    const at = this.#now()
    if (at - this.#shownAt < (this.#out.json ? EVENT_EVERY_MS : TERMINAL_EVERY_MS)) return
    this.#shownAt = at
    if (state.phase !== this.#phase) this.#samples = [] // each phase counts anew
    this.#phase = state.phase
    this.#samples.push({ at, bytes: state.doneBytes })
    while (this.#samples.length > 2 && at - this.#samples[0]!.at > WINDOW_MS) this.#samples.shift()
    const first = this.#samples[0]!
    const seconds = (at - first.at) / 1000
    const bytesPerSecond = seconds > 0 ? (state.doneBytes - first.bytes) / seconds : 0
    const leftMs =
      state.totalBytes === null || bytesPerSecond <= 0 ? null : ((state.totalBytes - state.doneBytes) / bytesPerSecond) * 1000
    if (this.#out.json)
      this.#out.event({
        progress: { ...state, bytesPerSecond: Math.round(bytesPerSecond), leftMs: leftMs && Math.round(leftMs) },
      })
    else this.#out.progress(progressLine(state, bytesPerSecond, leftMs, this.#out.errorColumns))
  }

  /** Takes the line away again. */
  end(): void {
    if (!this.#out.json) this.#out.progress('')
  }
}

function progressLine(state: TransferState, bytesPerSecond: number, leftMs: number | null, columns: number): string {
  const { phase, doneBytes, totalBytes, movedBytes, counts = { sent: movedBytes } } = state
  const share = totalBytes === null ? null : totalBytes === 0 ? 1 : Math.min(1, doneBytes / totalBytes)
  const texts = [
    share === null ? formatBytes(doneBytes) : `${String(Math.floor(share * 100)).padStart(3)} %`,
    `${formatBytes(Math.round(bytesPerSecond))}/s`,
    ...Object.entries(counts).map(([what, bytes]) => `${what} ${formatBytes(bytes)}`),
    leftMs === null ? '' : `${formatDuration(leftMs)} left`,
  ].filter(Boolean)
  const text = `${phase}  ${texts.join('  ')}`
  const room = Math.min(30, columns - text.length - 4)
  if (share === null || room < 8) return text.slice(0, columns - 1)
  const full = Math.round(share * room)
  return `${phase}  ${'█'.repeat(full)}${'░'.repeat(room - full)}  ${texts.join('  ')}`
}

/** `3 s`, `2 min 5 s`, `4 h 10 min`, `3 d 2 h`. */
export function formatDuration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000))
  const [s, min, h, d] = [
    seconds % 60,
    Math.floor(seconds / 60) % 60,
    Math.floor(seconds / 3600) % 24,
    Math.floor(seconds / 86_400),
  ]
  if (d > 0) return `${d} d ${h} h`
  if (h > 0) return `${h} h ${min} min`
  return min > 0 ? `${min} min ${s} s` : `${s} s`
}
