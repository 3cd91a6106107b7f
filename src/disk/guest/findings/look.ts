import { isServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import type { BlockSource } from '../../block/block-source.ts'
import type { FileTree, Found } from '../filesystems/file-tree.ts'
import { type Finding, findingOf, type Level } from './finding.ts'
import type { RuleId } from './rules.ts'

/** Of one rule; a file of a million keys is one finding of many. */
const MAX_FINDINGS_PER_RULE = 200
const MAX_NOTES = 100
/** Linux: PATH_MAX. Folders in folders make paths that are much longer. */
const MAX_PATH_CHARACTERS = 4096
const MAX_WORDS_CHARACTERS = 1024
const MAX_NAMES = 10_000
const MAX_TEXT_BYTES = MiB
/** Of what files say, in all. */
const MAX_READ_BYTES = 128 * MiB
const HEAD_BYTES = 4096

/** A regular file that was met. */
export interface VisitedFile {
  readonly path: string
  readonly name: string
  readonly bytes: number
  readonly found: Found
  /** Its text, at most the first 1 MiB: by its mark UTF-16, else a character for each byte. Undefined where it is none, with a NUL in its first 4 KiB, or cannot be read. */
  text(): Promise<string | undefined>
}

/** One theme of what is looked for, made anew for each look. */
export interface Check {
  /** Looks at the places that it knows. */
  places?(): Promise<void>
  /** Told of each regular file that is met, once. */
  file?(file: VisitedFile): void | Promise<void>
  /** After the last file. */
  end?(): void | Promise<void>
}
export type NewCheck = (look: Look) => Check

export interface LookOptions {
  readonly family: 'linux' | 'windows'
  readonly signal?: AbortSignal | undefined
}

/** A look at a tree: what was found, what could not be looked at, and how much more may be read. */
export class Look {
  readonly tree: FileTree
  readonly family: 'linux' | 'windows'
  readonly signal: AbortSignal | undefined
  readonly findings: Finding[] = []
  readonly notes: string[] = []
  isComplete = true
  files = 0
  readFiles = 0
  readBytes = 0
  readonly #perRule = new Map<RuleId, number>()
  #isSpent = false

  constructor(tree: FileTree, { family, signal }: LookOptions) {
    this.tree = tree
    this.family = family
    this.signal = signal
  }

  add(rule: RuleId, path: string | null, what: string, level?: Level): void {
    const count = (this.#perRule.get(rule) ?? 0) + 1
    this.#perRule.set(rule, count)
    const where = path && shortened(path, MAX_PATH_CHARACTERS)
    if (count <= MAX_FINDINGS_PER_RULE) this.findings.push(findingOf(rule, where, shortened(what, MAX_WORDS_CHARACTERS), level))
    else if (count === MAX_FINDINGS_PER_RULE + 1)
      this.#note(`there are more than ${MAX_FINDINGS_PER_RULE} findings of ${rule}: the rest is left out`)
  }

  /** Something that could not be looked at: nothing is clean any more. */
  unseen(note: string): void {
    this.isComplete = false
    this.#note(note)
  }

  /** What damage or a limit forbids to look at is noted, and undefined. */
  async attempt<Result>(where: string, work: () => Promise<Result>): Promise<Result | undefined> {
    this.signal?.throwIfAborted()
    try {
      return await work()
    } catch (error) {
      if (!isServiceError(error) || error.code === 'cancelled') throw error
      this.unseen(`${where} could not be looked at: ${error.message}`)
      return undefined
    }
  }

  /** What a path names; links followed unless told. */
  find(path: string, followsLast = true): Promise<Found | undefined> {
    return this.attempt(path, () => this.tree.find(path, followsLast))
  }

  /** The text of a regular file by its path, links followed, as UTF-8. Undefined where there is none. */
  async text(path: string): Promise<string | undefined> {
    const found = await this.find(path)
    if (found?.node.kind !== 'file') return undefined
    const bytes = await this.#head(found, MAX_TEXT_BYTES)
    return bytes && Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8')
  }

  /** The names in a directory, in their order; none where there is no such directory. */
  async names(path: string): Promise<readonly string[]> {
    const names: string[] = []
    await this.attempt(path, async () => {
      for await (const { name } of this.tree.list(path)) {
        if (names.length >= MAX_NAMES) return this.unseen(`${path} has more than ${MAX_NAMES} names: the rest was not looked at`)
        names.push(name)
      }
    })
    return names.sort()
  }

  visited(found: Found): VisitedFile {
    const { path, node } = found
    let text: Promise<string | undefined> | undefined
    const visited: VisitedFile = {
      path,
      name: path.slice(path.lastIndexOf('/') + 1),
      bytes: node.bytes,
      found,
      text: () => {
        text ??= this.#textOf(found)
        return text
      },
    }
    return visited
  }

  async #textOf(found: Found): Promise<string | undefined> {
    if (found.node.bytes === 0) return ''
    const head = await this.#head(found, HEAD_BYTES, false)
    const isUtf16 = head?.[0] === 0xff && head[1] === 0xfe
    if (!head || (head.includes(0) && !isUtf16)) return undefined
    const bytes = found.node.bytes <= HEAD_BYTES ? head : await this.#head(found, MAX_TEXT_BYTES)
    return bytes && Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString(isUtf16 ? 'utf16le' : 'latin1')
  }

  /** The beginning of a file. @param mustBeAll whether it is noted that there is more */
  #head(found: Found, maxBytes: number, mustBeAll = true): Promise<Uint8Array | undefined> {
    return this.attempt(found.path, async () => {
      const file: BlockSource = await found.fileSystem.data(found.node)
      const bytes = Math.min(file.size, maxBytes)
      if (this.readBytes + bytes > MAX_READ_BYTES) {
        if (!this.#isSpent) this.unseen(`more than ${MAX_READ_BYTES} bytes of text: ${found.path} and what follows was not read`)
        this.#isSpent = true
        return undefined
      }
      this.readFiles += 1
      this.readBytes += bytes
      if (mustBeAll && file.size > maxBytes)
        this.unseen(`${found.path} has ${file.size} bytes: only the first ${maxBytes} were read`)
      return file.read(0, bytes)
    })
  }

  #note(note: string): void {
    if (this.notes.length < MAX_NOTES) this.notes.push(shortened(note, MAX_PATH_CHARACTERS))
    else if (this.notes.length === MAX_NOTES) this.notes.push('there is more that could not be looked at')
  }
}

const shortened = (text: string, most: number): string => (text.length > most ? `${text.slice(0, most)}…` : text)
