/** Parts in which it is waited: a process that stood still itself hears what was said meanwhile before the next one is over. */
const PARTS = 5

/** Tells once when nothing was said for so long. */
export class Silence {
  readonly #clock: NodeJS.Timeout
  #left = PARTS

  constructor(afterMs: number, onSilence: () => void) {
    this.#clock = setInterval(() => {
      this.#left -= 1
      if (this.#left > 0) return
      this.end()
      onSilence()
    }, afterMs / PARTS)
  }

  get isOver(): boolean {
    return this.#left === 0
  }

  end(): void {
    clearInterval(this.#clock)
  }
}
