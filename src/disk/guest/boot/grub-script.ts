/** What a GRUB script says, as a tree. Source: GNU GRUB manual 2.12, "Writing full configuration files directly: Shell-like scripting". */
export type Statement =
  | { readonly kind: 'command'; readonly words: readonly Word[] }
  /** `menuentry`, `submenu`, `function`: the words before the brace, and what is in it. */
  | { readonly kind: 'block'; readonly words: readonly Word[]; readonly body: readonly Statement[] }
  | { readonly kind: 'if'; readonly branches: readonly Branch[] }
  /** `for`, `while`, `until`: what may happen any number of times. */
  | { readonly kind: 'loop'; readonly body: readonly Statement[] }
export interface Branch {
  /** Null: `else`. */
  readonly condition: readonly Statement[] | null
  readonly body: readonly Statement[]
}
/** Its parts stand together; an unquoted variable may become several words. */
export type Word = readonly Part[]
export type Part =
  | { readonly text: string; readonly isQuoted: boolean }
  | { readonly variable: string; readonly isQuoted: boolean }

export interface GrubScript {
  readonly statements: readonly Statement[]
  /** What is not as a script should be, a sentence each. */
  readonly notes: readonly string[]
}

const MAX_TOKENS = 200_000 // the largest menus that grub-mkconfig writes have some thousand words
const MAX_DEPTH = 32
const MAX_NAME = 200

/** Takes any text. What is left open at its end is closed there, and a note says so; beyond 200,000 words or a depth of 32 the rest is left out. */
export function parseGrubScript(text: string): GrubScript {
  return new Parser(text).parse()
}

type Token = { readonly kind: 'word'; readonly word: Word; readonly plain: string | undefined } | { readonly kind: 'end' }

class Parser {
  readonly #tokens: Iterator<Token>
  readonly #notes = new Set<string>()
  #next: Token | undefined
  #taken = 0

  constructor(text: string) {
    this.#tokens = tokensOf(text)
    this.#advance()
  }

  parse(): GrubScript {
    const statements: Statement[] = []
    while (this.#next) {
      statements.push(...this.#list([], 0))
      if (this.#next) {
        this.#notes.add('a word that closes what was not open')
        this.#advance()
      }
    }
    return { statements, notes: [...this.#notes] }
  }

  #advance(): void {
    this.#taken += 1
    if (this.#taken > MAX_TOKENS) this.#notes.add(`it has more than ${MAX_TOKENS} words; the rest was not looked at`)
    const next = this.#taken > MAX_TOKENS ? undefined : this.#tokens.next()
    this.#next = next === undefined || next.done ? undefined : next.value
  }

  /** Statements up to one of `closers`, which is not taken; every closer of an outer list ends it, too. */
  #list(closers: readonly string[], depth: number): Statement[] {
    const statements: Statement[] = []
    while (this.#next) {
      const { kind } = this.#next
      const plain = this.#plain()
      if (kind === 'end') {
        this.#advance()
        continue
      }
      if (plain !== undefined && (closers.includes(plain) || CLOSERS.has(plain))) return statements
      const statement = this.#statement(depth)
      if (statement) statements.push(statement)
    }
    if (closers.length > 0) this.#notes.add(`it ends where "${closers[0]}" was expected`)
    return statements
  }

  #plain(): string | undefined {
    return this.#next?.kind === 'word' ? this.#next.plain : undefined
  }

  #statement(depth: number): Statement | undefined {
    if (depth >= MAX_DEPTH) {
      this.#notes.add(`it is nested deeper than ${MAX_DEPTH}`)
      this.#advance()
      return undefined
    }
    const first = this.#plain()
    if (first === 'if') return this.#if(depth)
    if (first === 'for' || first === 'while' || first === 'until') {
      this.#advance()
      this.#list(['do'], depth + 1)
      this.#close('do')
      const body = this.#list(['done'], depth + 1)
      this.#close('done')
      return { kind: 'loop', body }
    }
    const words: Word[] = []
    while (this.#next?.kind === 'word') {
      const plain = this.#plain()
      if (plain === '{') {
        this.#advance()
        const body = this.#list(['}'], depth + 1)
        this.#close('}')
        return { kind: 'block', words, body }
      }
      if (plain === '}') break
      words.push(this.#next.word)
      this.#advance()
    }
    return words.length === 0 ? undefined : { kind: 'command', words }
  }

  #if(depth: number): Statement {
    const branches: Branch[] = []
    this.#advance()
    for (;;) {
      const condition = this.#list(['then'], depth + 1)
      this.#close('then')
      branches.push({ condition, body: this.#list(['elif', 'else', 'fi'], depth + 1) })
      if (this.#plain() !== 'elif') break
      this.#advance()
    }
    if (this.#plain() === 'else') {
      this.#advance()
      branches.push({ condition: null, body: this.#list(['fi'], depth + 1) })
    }
    this.#close('fi')
    return { kind: 'if', branches }
  }

  #close(closer: string): void {
    if (this.#plain() === closer) this.#advance()
    else this.#notes.add(`"${closer}" is missing`)
  }
}

const CLOSERS = new Set(['then', 'elif', 'else', 'fi', 'do', 'done', '}'])
const BLANK = new Set([' ', '\t', '\r'])
const NAME = /[A-Za-z0-9_]/

/** Words and the ends of commands. A backslash before a line's end joins it with the next one. */
function* tokensOf(text: string): Generator<Token> {
  let at = 0
  while (at < text.length) {
    const char = text[at]!
    if (BLANK.has(char)) at += 1
    else if (char === '\\' && text[at + 1] === '\n') at += 2
    else if (char === '\n' || char === ';' || char === '&' || char === '|') {
      yield { kind: 'end' }
      at += 1
    } else if (char === '#') {
      const end = text.indexOf('\n', at)
      at = end < 0 ? text.length : end
    } else {
      const { word, end } = wordAt(text, at)
      const [only] = word
      const isPlain = word.length === 1 && only !== undefined && 'text' in only && !only.isQuoted
      yield { kind: 'word', word, plain: isPlain ? only.text : undefined }
      at = end
    }
  }
}

function wordAt(text: string, from: number): { word: Word; end: number } {
  const parts: Part[] = []
  let at = from
  let pending = ''
  const flush = (isQuoted: boolean, evenEmpty = false) => {
    if (pending !== '' || evenEmpty) parts.push({ text: pending, isQuoted })
    pending = ''
  }
  let quote: '"' | "'" | '' = ''
  while (at < text.length) {
    const char = text[at]!
    if (quote === "'") {
      const end = text.indexOf("'", at)
      pending += text.slice(at, end < 0 ? text.length : end)
      flush(true, true)
      quote = ''
      at = end < 0 ? text.length : end + 1
    } else if (quote === '"' && char === '"') {
      flush(true, true)
      quote = ''
      at += 1
    } else if (char === '$' && variableAt(text, at)) {
      const { name, end } = variableAt(text, at)!
      flush(quote !== '')
      parts.push({ variable: name, isQuoted: quote !== '' })
      at = end
    } else if (char === '\\' && at + 1 < text.length) {
      const next = text[at + 1]!
      // in double quotes it stands for itself but before these
      if (next !== '\n') pending += quote === '"' && !'$"\\'.includes(next) ? char + next : next
      at += 2
    } else if (quote === '"') {
      pending += char
      at += 1
    } else if (char === '"' || char === "'") {
      flush(false)
      quote = char
      at += 1
    } else if (
      BLANK.has(char) ||
      '\n;&|'.includes(char) ||
      ((char === '{' || char === '}') && (pending !== '' || parts.length > 0))
    ) {
      break
    } else {
      pending += char
      at += 1
      if (char === '{' || char === '}') break
    }
  }
  flush(quote !== '')
  return { word: parts, end: at }
}

/** `$name`, `${name}`, `$?`. */
function variableAt(text: string, at: number): { name: string; end: number } | undefined {
  if (text[at + 1] === '{') {
    const name = /^[^}]*(?=\})/.exec(text.slice(at + 2, at + MAX_NAME))?.[0]
    return name === undefined ? undefined : { name, end: at + 3 + name.length }
  }
  let end = at + 1
  while (end < text.length && end - at < MAX_NAME && NAME.test(text[end]!)) end += 1
  if (end === at + 1 && '?@*#'.includes(text[end] ?? ' ')) end += 1
  return end === at + 1 ? undefined : { name: text.slice(at + 1, end), end }
}
