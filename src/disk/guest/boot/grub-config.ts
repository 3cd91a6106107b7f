import { Notes } from '../software/notes.ts'
import { entryNamed, firstOf, flat, inert, isKnown, itemOf, type MenuItem, titleOf, UNKNOWN, unknownIn } from './grub-menu.ts'
import { parseGrubScript, type Statement, type Word } from './grub-script.ts'
import type { BootMenu, MenuEntry } from './menu.ts'

export interface GrubSurroundings {
  readonly firmware: 'bios' | 'uefi'
  /** Variables of grubenv; undefined where there is none. */
  readonly environment: ReadonlyMap<string, string> | undefined
  /** What `blscfg` adds, in the order of the menu. */
  readonly loaderEntries: readonly MenuEntry[]
}
/** Another configuration that it goes on with. */
export interface GrubMenu extends BootMenu {
  readonly next: { readonly path: string; readonly root: string | null } | null
}

const MAX_STEPS = 20_000 // of a whole configuration: functions may call each other
const MAX_CALLS = 8
const MAX_ENTRIES = 500
const MAX_VARIABLES = 200
/** Of all words together, after their variables. */
const MAX_EXPANDED = 4 * 1024 * 1024
const MAX_VALUE = 4096
/** Set by GRUB itself, to what only the machine knows. */
const ofTheMachine: readonly string[] = ['root', 'prefix', 'cmdpath', 'config_directory', 'config_file', 'grub_cpu', 'lang', '?']

/**
 * What a grub.cfg starts. Its conditions are decided where they depend on variables alone that are known; else each way is gone, and a
 * variable that they set differently is not known. Nothing that is not known is guessed: a note says so. Takes any text.
 * Sources: GNU GRUB manual 2.12, "Shell-like scripting" and "Commands"; Fedora's patches for blscfg, linuxefi and initrdefi.
 */
export function readGrubConfig(text: string, surroundings: GrubSurroundings): GrubMenu {
  const script = parseGrubScript(text)
  const run = new Run(surroundings)
  for (const note of script.notes) run.notes.add(note)
  run.all(script.statements)
  return run.menu()
}

/** The block of 1,024 bytes that grub-editenv writes: a line of comment, `name=value`, filled up with `#`. */
export function parseGrubEnvironment(text: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>()
  for (const line of text.slice(0, 64 * 1024).split('\n')) {
    const at = line.indexOf('=')
    if (line.startsWith('#') || at <= 0 || values.size >= MAX_VARIABLES) continue
    values.set(
      line.slice(0, at),
      line
        .slice(at + 1)
        .replace(/\\(.)/g, '$1')
        .slice(0, MAX_VALUE),
    )
  }
  return values
}

/** Of a variable: null is what is not known. */
type Value = string | null

interface Started {
  kernel: string | null
  kind: MenuEntry['kind']
  arguments: string
  initramfs: string[]
  notes: Set<string>
}

class Run {
  readonly notes = new Notes()
  readonly #surroundings: GrubSurroundings
  readonly #functions = new Map<string, readonly Statement[]>()
  readonly #consoles = new Set<string>()
  #variables: Map<string, Value>
  #items: MenuItem[] = []
  #entries = 0
  #steps = 0
  #calls = 0
  #expandedBytes = 0
  /** Of the entry that is being read. */
  #started: Started | undefined
  #unsure = 0
  #isUnsure = false
  #next: GrubMenu['next'] = null

  constructor(surroundings: GrubSurroundings) {
    this.#surroundings = surroundings
    this.#variables = new Map<string, Value>([
      ['grub_platform', surroundings.firmware === 'uefi' ? 'efi' : 'pc'],
      ['feature_menuentry_id', 'y'],
      ['feature_menuentry_options', 'y'],
      ['feature_platform_search_hint', 'y'],
      ['feature_default_font_path', 'y'],
      ['feature_all_video_module', 'y'],
      ['feature_timeout_style', 'y'],
      ['feature_chainloader_bpb', 'y'],
      ['feature_ntldr', 'y'],
      ['feature_200_final', 'y'],
      ...ofTheMachine.map((name): [string, Value] => [name, null]),
    ])
  }

  menu(): GrubMenu {
    const entries = [...flat(this.#items)]
    const chosen = this.#chosen()
    return { entries, chosen, notes: this.notes.list, consoles: [...this.#consoles], next: this.#next }
  }

  all(statements: readonly Statement[]): void {
    for (const statement of statements) {
      this.#steps += 1
      if (this.#steps === MAX_STEPS) this.notes.add(`more than ${MAX_STEPS} commands; the rest was not looked at`)
      if (this.#steps >= MAX_STEPS) return
      switch (statement.kind) {
        case 'command':
          this.#command(statement.words)
          break
        case 'block':
          this.#block(statement)
          break
        case 'if':
          this.#if(statement.branches)
          break
        case 'loop':
          this.#maybe([statement.body, []])
          break
      }
    }
  }

  #command(written: readonly Word[]): void {
    const [name = '', ...words] = this.#expanded(written)
    const called = this.#functions.get(name)
    if (called) {
      if (this.#calls >= MAX_CALLS) return
      this.#calls += 1
      this.all(called)
      this.#calls -= 1
      return
    }
    const first = written[0]?.map((part) => ('text' in part ? part.text : '')).join('') ?? ''
    // `linux$sixteenbit`, `initrd${efi}`: a suffix that is not known does not make it another command
    const command = /^(linux|initrd)/.exec(first)?.[1] ?? name
    if (command === 'linux') {
      if (this.#started) this.#start('linux', words[0] ?? null, words.slice(1).join(' '))
      return
    }
    if (command === 'initrd') {
      if (this.#started) this.#started.initramfs = words.slice(0, 16).filter((word) => !word.startsWith('-'))
      return
    }
    const assignment = name === 'set' ? words[0] : name.includes('=') && words.length === 0 ? name : undefined
    if (assignment !== undefined) {
      this.#set(assignment)
      return
    }
    switch (name) {
      case 'unset':
        if (words[0] !== undefined) this.#variables.delete(words[0])
        return
      case 'load_env':
        this.#loadEnvironment(words)
        return
      case 'search':
      case 'search.fs_uuid':
      case 'search.fs_label':
      case 'search.file':
        this.#search(name, words)
        return
      case 'chainloader':
        if (this.#started) this.#start('chain', words.filter((word) => !word.startsWith('-'))[0] ?? null, '')
        return
      case 'configfile':
      case 'source':
      case 'normal':
        if (words[0] !== undefined && !this.#started) this.#next = { path: words[0], root: this.#root() }
        return
      case 'blscfg':
        for (const entry of this.#surroundings.loaderEntries) this.#add({ ...itemOf(entry), entry: this.#withVariables(entry) })
        return
      case 'terminal_input':
      case 'terminal_output':
      case 'terminal':
        for (const word of words) if (/^[a-z_]{1,20}\d?$/.test(word)) this.#consoles.add(word)
    }
  }

  #start(kind: MenuEntry['kind'], kernel: string | null, args: string): void {
    const started = this.#started!
    if (started.kernel !== null && this.#unsure > 0 && started.kernel !== kernel)
      started.notes.add(`it starts ${started.kernel} or ${kernel}, which is decided when it starts`)
    Object.assign(started, { kind, kernel, arguments: args.slice(0, MAX_VALUE) })
  }

  #set(assignment: string): void {
    const at = assignment.indexOf('=')
    if (at <= 0) return
    const value = assignment.slice(at + 1)
    this.#put(assignment.slice(0, at), isKnown(value) ? value : null)
  }

  #put(name: string, value: Value): void {
    if (this.#variables.size < MAX_VARIABLES || this.#variables.has(name))
      this.#variables.set(name, value?.slice(0, MAX_VALUE) ?? null)
  }

  #loadEnvironment(words: readonly string[]): void {
    const named = words.filter(
      (word, index) => !word.startsWith('-') && words[index - 1] !== '-f' && words[index - 1] !== '--file',
    )
    for (const [name, value] of this.#surroundings.environment ?? [])
      if (named.length === 0 || named.includes(name)) this.#put(name, value)
  }

  #search(command: string, words: readonly string[]): void {
    const kind = /fs.uuid|-u\b/.test(`${command} ${words.join(' ')}`)
      ? 'UUID'
      : /label|-l\b/.test(`${command} ${words.join(' ')}`)
        ? 'LABEL'
        : 'file'
    const set = words.find((word) => word.startsWith('--set'))
    const bare = words.filter(
      (word, index) => !word.startsWith('-') && !/^(--hint(-[a-z]+)?|-h|--set|-s)$/.test(words[index - 1] ?? ''),
    )
    const sought = command === 'search' ? bare.at(-1) : bare[0]
    // the old form names the variable behind what is sought: `search.fs_uuid UUID root hd0,gpt2`
    const variable = set?.split('=')[1] ?? (command === 'search' ? 'root' : (bare[1] ?? 'root'))
    const isSure = sought !== undefined && isKnown(sought) && kind !== 'file'
    this.#put(variable, isSure ? `${kind}=${sought}` : null)
  }

  #root(): string | null {
    return this.#variables.get('root') ?? null
  }

  #block({ words, body }: Extract<Statement, { kind: 'block' }>): void {
    const [kind, ...rest] = this.#expanded(words)
    if (kind === 'function') {
      if (rest[0] !== undefined && this.#functions.size < MAX_VARIABLES) this.#functions.set(rest[0], body)
      return
    }
    if (kind !== 'menuentry' && kind !== 'submenu') {
      this.#maybe([body, []])
      return
    }
    const { title, id } = titleOf(rest)
    if (this.#started) return
    if (kind === 'submenu') this.#add({ title, id, entry: undefined, submenu: this.#submenu(body) })
    else this.#add({ title, id, entry: this.#entry(title, id, body), submenu: [] })
  }

  #submenu(body: readonly Statement[]): readonly MenuItem[] {
    const [outer, variables] = [this.#items, new Map(this.#variables)]
    this.#items = []
    this.all(body)
    const inner = this.#items
    ;[this.#items, this.#variables] = [outer, variables]
    return inner
  }

  /** Its commands are run with the variables that the menu leaves; what they set stays with them. */
  #entry(title: string, id: string, body: readonly Statement[]): MenuEntry {
    const variables = new Map(this.#variables)
    const [unsure, next] = [this.#unsure, this.#next]
    this.#unsure = 0
    this.#started = { kernel: null, kind: 'other', arguments: '', initramfs: [], notes: new Set() }
    this.all(body)
    const { notes, ...started } = this.#started
    this.#started = undefined
    const root = this.#root()
    ;[this.#variables, this.#unsure, this.#next] = [variables, unsure, next]
    return { ...started, title, id, root, notes: [...notes] }
  }

  #add(item: MenuItem): void {
    if (this.#entries >= MAX_ENTRIES) {
      if (this.#entries === MAX_ENTRIES) this.notes.add(`more than ${MAX_ENTRIES} entries; the rest is left out`)
      this.#entries += 1
      return
    }
    this.#entries += 1
    if (this.#unsure > 0 && !this.#isUnsure) {
      this.#isUnsure = true
      this.notes.add(`whether "${item.title}" is in the menu is decided when it starts`)
    }
    this.#items.push(item)
  }

  #if(branches: Extract<Statement, { kind: 'if' }>['branches']): void {
    const possible: (readonly Statement[])[] = []
    let isDecided = false
    for (const { condition, body } of branches) {
      const holds = condition === null ? true : this.#holds(condition)
      if (holds !== false) possible.push(body)
      if (holds === true) {
        isDecided = true
        break
      }
    }
    if (isDecided && possible.length === 1) this.all(possible[0]!)
    else if (possible.length > 0) this.#maybe(isDecided ? possible : [...possible, []])
  }

  /** One of these happens, and it is not known which. */
  #maybe(bodies: readonly (readonly Statement[])[]): void {
    const before = this.#variables
    const after: Map<string, Value>[] = []
    this.#unsure += 1
    for (const body of bodies) {
      this.#variables = new Map(before)
      this.all(body)
      after.push(this.#variables)
    }
    this.#unsure -= 1
    const names = new Set(after.flatMap((one) => [...one.keys()]))
    this.#variables = new Map(
      [...names].map((name): [string, Value] => {
        const values = new Set(after.map((one) => one.get(name) ?? (one.has(name) ? null : '')))
        return [name, values.size === 1 ? [...values][0]! : null]
      }),
    )
  }

  /** Undefined: it cannot be told here. */
  #holds(condition: readonly Statement[]): boolean | undefined {
    const [only, ...more] = condition
    if (only?.kind !== 'command' || more.length > 0) return undefined
    let words = this.#expanded(only.words)
    const isNegated = words[0] === '!'
    if (isNegated) words = words.slice(1)
    const [name, ...rest] = words
    if (name === 'true') return !isNegated
    if (name === 'false') return isNegated
    if (name !== 'test' && (name !== '[' || rest.at(-1) !== ']')) return undefined
    const holds = this.#test(name === '[' ? rest.slice(0, -1) : rest)
    return holds === undefined ? undefined : holds !== isNegated
  }

  #test(words: readonly string[]): boolean | undefined {
    const [first = '', second, third] = words
    if (first === '!') {
      const holds = this.#test(words.slice(1))
      return holds === undefined ? undefined : !holds
    }
    if (words.length === 2 && ['-s', '-f', '-e'].includes(first))
      return second?.endsWith('/grubenv') ? this.#surroundings.environment !== undefined : undefined
    if (!words.every(isKnown)) return undefined
    if (words.length <= 1) return first !== ''
    if (words.length === 2 && first === '-n') return second !== ''
    if (words.length === 2 && first === '-z') return second === ''
    if (words.length === 3 && (second === '=' || second === '==')) return first === third
    if (words.length === 3 && second === '!=') return first !== third
    return undefined
  }

  /** What is not known stays in it as `${name}`, with a mark before. */
  #expanded(words: readonly Word[]): string[] {
    const all: string[] = []
    for (const word of words) {
      let text = ''
      let isThere = word.length === 0
      for (const part of word) {
        if ('text' in part) {
          text += part.text
          isThere = true
          continue
        }
        const value = this.#valueOf(part.variable)
        isThere ||= part.isQuoted || value !== ''
        if (part.isQuoted || !/\s/.test(value)) text += value
        else {
          const [start = '', ...others] = value.split(/\s+/)
          if (others.length > 0) all.push(text + start)
          all.push(...others.slice(0, -1))
          text = others.at(-1) ?? text + start
        }
        if (text.length > MAX_VALUE) text = text.slice(0, MAX_VALUE)
      }
      this.#expandedBytes += text.length
      if (this.#expandedBytes > MAX_EXPANDED) this.#steps = Math.max(this.#steps, MAX_STEPS - 1)
      if (this.#expandedBytes > MAX_EXPANDED) break
      if (isThere) all.push(text)
    }
    if (this.#started && !all.every(isKnown))
      for (const name of unknownIn(all)) this.#started.notes.add(`\${${name}} is known only when it starts`)
    return all
  }

  #valueOf(name: string): string {
    if (name === 'menuentry_id_option') return '--id'
    const value = this.#variables.get(name)
    if (value === null) return `${UNKNOWN}{${name}}`
    return value ?? ''
  }

  /** BLS entries may have GRUB's variables in their lines. */
  #withVariables(entry: MenuEntry): MenuEntry {
    const notes = new Set(entry.notes)
    const put = (text: string) =>
      text.replace(/\$(?:\{(\w{1,64})\}|(\w{1,64}))/g, (_, a?: string, b?: string) => {
        const value = this.#valueOf(a ?? b ?? '')
        if (!isKnown(value)) notes.add(`\${${a ?? b}} is known only when it starts`)
        return value
      })
    return {
      ...entry,
      arguments: inert(put(entry.arguments).replace(/\s+/g, ' ').trim()).slice(0, MAX_VALUE),
      initramfs: entry.initramfs
        .map((path) => put(path).trim())
        .flatMap((paths) => paths.split(/\s+/))
        .filter((path) => path !== ''),
      root: this.#root(),
      notes: [...notes],
    }
  }

  /** GNU GRUB manual, "default": a number, a title or an id, with `>` between those of menus; the first entry where it names none. */
  #chosen(): MenuEntry | null {
    const value = this.#variables.get('default')
    if (value === null) {
      this.notes.add('which entry is started is decided when it starts')
      return null
    }
    const wanted = value === undefined || value === '' ? '0' : value
    const found = entryNamed(this.#items, wanted, 0)
    if (found) return found
    const first = this.#items[0]
    if (first && wanted !== '0') this.notes.add(`the entry "${wanted}" is not in the menu: the first is started`)
    return first ? (first.entry ?? firstOf(first.submenu)) : null
  }
}
