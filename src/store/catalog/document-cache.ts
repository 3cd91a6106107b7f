import type { DocumentQuery, DocumentReader, StoredDocument } from './catalog.ts'
import { KeptAnswers } from './kept-answers.ts'

/** Kinds of which every request reads one: they are read from memory until one of the kind is written. */
const keptKinds: ReadonlySet<string> = new Set(['token', 'registered-limit', 'limit'])

const MAX_CHARACTERS = 4 * 1024 * 1024 // of each kind: some 8,000 tokens

type Answer = StoredDocument<unknown> | undefined | readonly StoredDocument<unknown>[]

/** Committed documents; those of the kinds above are read once after each commit that changes one of them. */
export class DocumentCache implements DocumentReader {
  readonly #documents: DocumentReader
  readonly #kept = new Map<string, KeptAnswers<{ readonly answer: Answer }>>()

  /** @param documents sees nothing but committed rows */
  constructor(documents: DocumentReader) {
    this.#documents = documents
    for (const kind of keptKinds) this.forget(kind)
  }

  /** To be called in the same step as a commit that changes documents of `kind`. */
  forget(kind: string): void {
    if (keptKinds.has(kind)) this.#kept.set(kind, new KeptAnswers(MAX_CHARACTERS))
  }

  get<T>(kind: string, key: string): Promise<StoredDocument<T> | undefined> {
    const kept = this.#kept.get(kind)
    if (!kept) return this.#documents.get<T>(kind, key)
    return this.#answer(kept, `get ${key}`, () => this.#documents.get<T>(kind, key))
  }

  list<T>(kind: string, query: DocumentQuery = {}): Promise<readonly StoredDocument<T>[]> {
    const kept = this.#kept.get(kind)
    if (!kept) return this.#documents.list<T>(kind, query)
    return this.#answer(kept, `list ${JSON.stringify(query)}`, () => this.#documents.list<T>(kind, query))
  }

  async #answer<A extends Answer>(
    kept: KeptAnswers<{ readonly answer: Answer }>,
    question: string,
    read: () => Promise<A>,
  ): Promise<A> {
    const known = kept.get(question)
    if (known) return known.answer as A // put there by the same question
    const answer = deepFreeze(await read())
    kept.keep(question, { answer }, JSON.stringify(answer)?.length ?? 0)
    return answer
  }
}

/** Many readers are given the same one. */
function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value
  for (const part of Object.values(value)) deepFreeze(part)
  return Object.freeze(value)
}
