const MAX_NOTES = 100 // a database with a million faults must not make a million sentences
const MAX_CHARACTERS = 1000

/** What could not be read, a sentence each: the first hundred, and how many more there were. */
export class Notes {
  readonly #notes: string[] = []
  #left = 0

  add(note: string): void {
    if (this.#notes.length < MAX_NOTES) this.#notes.push(note.slice(0, MAX_CHARACTERS))
    else this.#left += 1
  }

  get list(): readonly string[] {
    return this.#left === 0 ? [...this.#notes] : [...this.#notes, `${this.#left} more faults are not told`]
  }
}
