const ENTRY_CHARACTERS = 200 // what keeping an answer costs, however short it is

/**
 * Answers by question, the lately used ones. They are never corrected: a commit that changes what was asked about puts new,
 * empty `KeptAnswers` in the place of these. So whoever asks takes the answers that stand there *before* reading, and keeps what
 * it read in those: if a commit came in between, nobody looks there any more.
 *
 * This holds because one process owns a catalog, and the commit and the exchange are one step of the thread that reads.
 */
export class KeptAnswers<T> {
  readonly #maxCharacters: number
  readonly #answers = new Map<string, { readonly answer: T; readonly characters: number }>()
  #characters = 0

  /** @param maxCharacters of all questions and answers together; an answer of more than a sixteenth of it is not kept */
  constructor(maxCharacters: number) {
    this.#maxCharacters = maxCharacters
  }

  get(question: string): T | undefined {
    const known = this.#answers.get(question)
    if (!known) return undefined
    this.#answers.delete(question) // set anew, so that the map stays in order of use
    this.#answers.set(question, known)
    return known.answer
  }

  /** @param characters how long the answer is as text, about */
  keep(question: string, answer: T, characters: number): void {
    const all = ENTRY_CHARACTERS + question.length + characters
    if (all > this.#maxCharacters / 16) return
    this.#forget(question)
    this.#answers.set(question, { answer, characters: all })
    this.#characters += all
    for (const idlest of this.#answers.keys()) {
      if (this.#characters <= this.#maxCharacters) return
      this.#forget(idlest)
    }
  }

  #forget(question: string): void {
    const known = this.#answers.get(question)
    if (!known) return
    this.#answers.delete(question)
    this.#characters -= known.characters
  }
}
