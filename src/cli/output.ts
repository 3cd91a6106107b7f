import { columnsOf, safeJson, safeText } from './safe-text.ts'

/** What a command writes to: `process.stdout`, or a list in a test. */
export interface Sink {
  write(text: string): void
  readonly isTerminal: boolean
  /** Columns of the terminal. */
  readonly columns: number
}

export type Tone = 'plain' | 'good' | 'bad' | 'dim' | 'strong'
const escapeOf: Record<Tone, string> = { plain: '', good: '\x1b[32m', bad: '\x1b[31m', dim: '\x1b[2m', strong: '\x1b[1m' }

export interface Column<Row> {
  readonly title: string
  readonly value: (row: Row) => string | number | null
  readonly align?: 'left' | 'right'
  readonly tone?: (row: Row) => Tone
}

/**
 * All that a command prints. Text for people goes through `safeText`; with `--json` the answer is one document on stdout and
 * nothing else is. Notes, progress and errors are on stderr.
 */
export class Output {
  readonly json: boolean
  readonly #out: Sink
  readonly #err: Sink
  readonly #coloured: { readonly out: boolean; readonly err: boolean }

  constructor(out: Sink, err: Sink, options: { readonly json: boolean; readonly environment: Environment }) {
    this.#out = out
    this.#err = err
    this.json = options.json
    const { NO_COLOR, TERM } = options.environment
    const allowed = !NO_COLOR && TERM !== 'dumb'
    this.#coloured = { out: allowed && out.isTerminal, err: allowed && err.isTerminal }
  }

  get errorsToTerminal(): boolean {
    return this.#err.isTerminal
  }
  get errorColumns(): number {
    return this.#err.columns
  }

  /** The answer: `value` with `--json`, else what `people` prints. */
  result(value: unknown, people: () => void): void {
    if (this.json) this.#out.write(`${safeJson(value, 2)}\n`)
    else people()
  }

  /** One line of text written by us; values in it must have met `safeText`. */
  line(text = ''): void {
    this.#out.write(`${text}\n`)
  }

  /** Text as it is, many lines: a completion script. */
  raw(text: string): void {
    this.#out.write(text)
  }

  /** One element of an answer that is too long for one document. */
  jsonText(value: unknown): string {
    return safeJson(value)
  }

  /** A remark beside the answer, for people only. */
  note(text: string): void {
    if (!this.json) this.#err.write(`${this.#paint(text, 'dim', this.#coloured.err)}\n`)
  }

  error(text: string): void {
    this.#err.write(`${this.#paint('imprint:', 'bad', this.#coloured.err)} ${text}\n`)
  }

  /** Progress: written over itself on a terminal. */
  progress(text: string): void {
    if (this.#err.isTerminal) this.#err.write(`\r\x1b[2K${text}`)
  }

  /** Progress for programs: one JSON document a line, on stderr. */
  event(value: unknown): void {
    this.#err.write(`${safeJson(value)}\n`)
  }

  tone(text: string, tone: Tone): string {
    return this.#paint(text, tone, this.#coloured.out)
  }

  table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): void {
    const cells = rows.map((row) => columns.map(({ value }) => safeText(String(value(row) ?? '–'))))
    const widths = columns.map(({ title }, at) => cells.reduce((most, row) => Math.max(most, columnsOf(row[at]!)), title.length))
    const put = (texts: readonly string[], toneAt: (at: number) => Tone) =>
      this.line(
        columns
          .map(({ align }, at) => {
            const text = texts[at]!
            const last = at === columns.length - 1 && align !== 'right'
            const space = last ? '' : ' '.repeat(Math.max(0, widths[at]! - columnsOf(text)))
            const painted = this.tone(text, toneAt(at))
            return align === 'right' ? space + painted : painted + space
          })
          .join('  ')
          .trimEnd(),
      )
    put(
      columns.map(({ title }) => title),
      () => 'dim',
    )
    for (const [index, row] of rows.entries()) put(cells[index]!, (at) => columns[at]!.tone?.(row) ?? 'plain')
  }

  /** Name and value, one a line. */
  record(pairs: readonly (readonly [name: string, value: string | number | null])[]): void {
    const width = pairs.reduce((most, [name]) => Math.max(most, columnsOf(safeText(name))), 0)
    for (const [name, value] of pairs) {
      const safeName = safeText(name)
      const space = ' '.repeat(width - columnsOf(safeName))
      this.line(`${this.tone(safeName, 'dim')}${space}  ${safeText(String(value ?? '–'))}`)
    }
  }

  #paint(text: string, tone: Tone, coloured: boolean): string {
    return coloured && escapeOf[tone] !== '' && text !== '' ? `${escapeOf[tone]}${text}\x1b[0m` : text
  }
}

export type Environment = Readonly<Record<string, string | undefined>>

/**
 * A process stream as a sink. A reader that has gone (`imprint image list | head -1`) ends the program quietly, with the
 * status that a shell gives a program killed by SIGPIPE.
 */
export function streamSink(stream: NodeJS.WriteStream): Sink {
  stream.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 141 : 1))
  return {
    write: (text) => void stream.write(text),
    isTerminal: stream.isTTY === true,
    get columns() {
      return stream.columns || 80
    },
  }
}
