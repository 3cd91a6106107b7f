/**
 * What a process does to the files of a folder, recorded by strace(1), and what of it a disk may hold when the power goes.
 *
 * The model is POSIX's, which promises less than any file system keeps:
 * - bytes of a file are safe once an `fsync` or `fdatasync` of it that began after their write had ended has ended;
 * - a name is made or gone for good once an `fsync` of its folder, begun after, has ended, and not by one of the file;
 * - all else is there, or not, or in part: any of the writes without those before them, each cut off at any byte.
 *
 * Not modelled: a disk that loses what it said to be safe, or bytes that nobody wrote; memory maps, by which SQLite writes only
 * `-shm` files, made anew from the log by whoever opens the database first: no state has any.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

type FileNode = { readonly kind: 'file'; safe: Buffer; waiting: FileChange[] }
type FolderNode = { readonly kind: 'folder'; safe: Map<string, Node>; now: Map<string, Node>; waiting: NameChange[] }
type Node = FileNode | FolderNode
type FileChange = { readonly endedAt: number } & (
  | { readonly offset: number; readonly bytes: Buffer }
  | { readonly length: number }
)
/** `node` null: the name is gone. */
type NameChange = { readonly endedAt: number; readonly name: string; readonly node: Node | null }

interface Call {
  readonly name: string
  /** Its arguments without the strings. */
  readonly text: string
  /** The strings among them. */
  readonly strings: readonly Buffer[]
  readonly result: number
  /** Seconds since 1970. */
  readonly beganAt: number
  readonly endedAt: number
}

const CALLS = [
  ['openat', 'open', 'creat', 'write', 'pwrite64', 'writev', 'pwritev', 'pwritev2', 'ftruncate', 'truncate', 'fallocate'],
  ['copy_file_range', 'sendfile', 'fsync', 'fdatasync', 'sync_file_range', 'link', 'linkat', 'symlink', 'symlinkat'],
  ['unlink', 'unlinkat', 'rename', 'renameat', 'renameat2', 'mkdir', 'mkdirat', 'rmdir', 'close'],
].flat()
const MAX_WRITE_BYTES = 4 * 2 ** 20 // strace keeps room for the longest string

/** How the calls since the last sync of their file or folder end up. */
export type Fate = 'all lost' | 'all kept' | 'some'

/** A folder as it was when the recording began, and the calls on it since. */
export class RecordedDisk {
  readonly #folder: string
  readonly #log: string
  /** When the process and its recording have ended. */
  readonly ended: () => Promise<void>
  /** Paths of the first picture, relative, to their bytes; null for a folder. */
  readonly #before: ReadonlyMap<string, Buffer | null>

  /** @param pid of a process that is idle, with all that lies in `folder` safe. @param log a file outside of it */
  static async record(pid: number, folder: string, log: string): Promise<RecordedDisk> {
    const strace = spawn('strace', [...optionsOf(log), '-p', String(pid)], { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    for await (const text of strace.stderr.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
      said += text
      if (said.includes(`Process ${pid} attached`)) break
    }
    strace.stderr.resume()
    if (!said.includes('attached')) throw new Error(`strace did not begin: ${said}`)
    const ended = async () => {
      if (strace.exitCode === null && strace.signalCode === null) await once(strace, 'exit')
    }
    return new RecordedDisk(folder, log, ended)
  }

  /** What a command begins with that is to be recorded from its first call on; it keeps its process id. */
  static under = (log: string): readonly string[] => ['strace', '-D', ...optionsOf(log)]

  /** The recording of a process that was started `under` it, on an empty folder, and has been stopped with its group. */
  static of(folder: string, log: string): RecordedDisk {
    return new RecordedDisk(folder, log, async () => {}, new Map())
  }

  private constructor(
    folder: string,
    log: string,
    ended: () => Promise<void>,
    before: ReadonlyMap<string, Buffer | null> = pictureOf(folder),
  ) {
    this.#folder = folder
    this.#log = log
    this.ended = ended
    this.#before = before
  }

  /** When a call ended, of all that there are: between two of them nothing changes. */
  get instants(): readonly number[] {
    return this.#calls().map(({ endedAt }) => endedAt * 1000)
  }

  /** The calls that had ended at `at`, in milliseconds since 1970. */
  stateAt(at: number): DiskState {
    const state = new DiskState(this.#folder, this.#before)
    for (const call of this.#calls()) if (call.endedAt * 1000 <= at) state.apply(call)
    return state
  }

  #known: readonly Call[] | undefined
  #calls(): readonly Call[] {
    this.#known ??= callsIn(readFileSync(this.#log, 'latin1'), hexOf(this.#folder))
    return this.#known
  }
}

const STRING = /"((?:\\x[0-9a-f]{2})*)"/g

const optionsOf = (log: string): readonly string[] => {
  const what = ['-e', `trace=${CALLS.join()}`, '-s', String(MAX_WRITE_BYTES)]
  return ['-f', '-y', '-xx', '-ttt', '-T', ...what, '-o', log]
}

function pictureOf(folder: string): ReadonlyMap<string, Buffer | null> {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true })
  const kept = entries.filter((entry) => entry.isFile() || entry.isDirectory()) // a socket has no bytes
  return new Map(
    kept.map((entry) => {
      const path = join(entry.parentPath, entry.name)
      return [path.slice(folder.length + 1), entry.isDirectory() ? null : readFileSync(path)]
    }),
  )
}

/** In the order in which they ended. */
function callsIn(log: string, about: string): readonly Call[] {
  const calls: Call[] = []
  const begun = new Map<string, { readonly text: string; readonly beganAt: number }>()
  for (const line of log.split('\n')) {
    const isAbout = line.includes(about)
    if (!isAbout && !line.includes(' resumed>') && !line.endsWith(' <unfinished ...>')) continue
    const [, thread = '', time = '', rest = ''] = /^(\d+) +(\d+\.\d+) (.*)$/s.exec(line) ?? []
    const unfinished = / <unfinished \.\.\.>$/.exec(rest)
    if (unfinished) {
      if (isAbout) begun.set(thread, { text: rest.slice(0, unfinished.index), beganAt: Number(time) })
      else begun.delete(thread)
      continue
    }
    const resumed = /^<\.\.\. \w+ resumed>/.exec(rest)
    const first = resumed ? begun.get(thread) : undefined
    begun.delete(thread)
    if (resumed && !first) continue // it is about something else, or had begun before the recording, when the process was idle
    const text = resumed ? first!.text + rest.slice(resumed[0].length) : rest
    const [, name, args, result, took] = /^(\w+)\((.*)\) += (-?\d+)\S*.*?(?: <([\d.]+)>)?$/s.exec(text) ?? []
    if (!name || !args?.includes(about) || Number(result) < 0) continue
    if (args.includes('"...')) throw new Error(`${name} wrote more than strace keeps`)
    const beganAt = first?.beganAt ?? Number(time)
    const endedAt = resumed ? Number(time) : beganAt + Number(took)
    const strings = [...args.matchAll(STRING)].map(([, hex = '']) => bytesOf(hex))
    calls.push({ name, text: args.replaceAll(STRING, '""'), strings, result: Number(result), beganAt, endedAt })
  }
  return calls.sort((a, b) => a.endedAt - b.endedAt)
}

const hexOf = (text: string): string => [...Buffer.from(text)].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')
const bytesOf = (hex: string): Buffer => Buffer.from(hex.replaceAll('\\x', ''), 'hex')

/** Files and folders with what is safe of each, and what waits. */
export class DiskState {
  readonly #folder: string
  readonly #root: FolderNode = newFolder()
  /** By file descriptor: where the next `write` goes. */
  readonly #positions = new Map<string, number>()
  #changes = 0

  constructor(folder: string, before: ReadonlyMap<string, Buffer | null>) {
    this.#folder = folder
    for (const [path, bytes] of [...before].sort(([a], [b]) => (a < b ? -1 : 1))) {
      if (isScratch(path)) continue
      const node: Node = bytes === null ? newFolder() : { kind: 'file', safe: bytes, waiting: [] }
      const [parent, name] = this.#placeOf(path)
      parent.safe.set(name, node)
      parent.now.set(name, node)
    }
  }

  /** Calls that changed something. */
  get changes(): number {
    return this.#changes
  }

  apply({ name, text, strings, result, beganAt, endedAt }: Call): void {
    const [, fd = '', opened = ''] = /^(\d+)<((?:\\x[0-9a-f]{2})*)>/.exec(text) ?? []
    const file = opened ? this.#inside(bytesOf(opened).toString()) : undefined
    if (file !== undefined && isScratch(file)) return
    const change = (path: string | undefined, made: FileChange) => {
      if (path !== undefined && !isScratch(path)) this.#changeFile(path, made)
    }
    const [from, to] = strings.map((path) => (path.length < 4096 ? this.#inside(path.toString()) : undefined))
    switch (name) {
      case 'open':
      case 'openat': {
        if (from === undefined || isScratch(from)) return
        this.#positions.set(String(result), 0)
        if (text.includes('O_CREAT') && !this.#find(from))
          this.#name(from, { kind: 'file', safe: Buffer.alloc(0), waiting: [] }, endedAt)
        else if (text.includes('O_TRUNC')) change(from, { endedAt, length: 0 })
        if (text.includes('O_APPEND')) this.#positions.delete(String(result))
        return
      }
      case 'close':
        this.#positions.delete(fd)
        return
      case 'write':
      case 'writev': {
        const bytes = Buffer.concat(strings).subarray(0, result)
        const offset = this.#positions.get(fd) ?? this.#sizeOf(file)
        if (this.#positions.has(fd)) this.#positions.set(fd, offset + result)
        change(file, { endedAt, offset, bytes })
        return
      }
      case 'pwrite64':
      case 'pwritev':
      case 'pwritev2': {
        const [, offset] = (name === 'pwritev2' ? /, (\d+), \S+$/ : /, (\d+)$/).exec(text) ?? []
        change(file, { endedAt, offset: Number(offset), bytes: Buffer.concat(strings).subarray(0, result) })
        return
      }
      case 'ftruncate':
        change(file, { endedAt, length: Number(/(\d+)$/.exec(text)?.[1]) })
        return
      case 'fsync':
      case 'fdatasync':
        if (file !== undefined) this.#sync(file, beganAt)
        return
      case 'link':
        this.#name(to!, this.#find(from!)!, endedAt)
        return
      case 'unlink':
      case 'rmdir':
        if (from !== undefined && !isScratch(from)) this.#name(from, null, endedAt)
        return
      case 'rename':
        this.#name(to!, this.#find(from!)!, endedAt)
        this.#name(from!, null, endedAt)
        return
      case 'mkdir':
        this.#name(from!, newFolder(), endedAt)
        return
      default:
        throw new Error(`this recording knows no ${name}: ${text.slice(0, 200)}`)
    }
  }

  /** Writes what the disk may hold into `target`, which is made. @param random between 0 and 1 */
  write(target: string, fate: Fate, random: () => number): void {
    writeFolder(this.#root, target, fate, random)
  }

  #changeFile(path: string, made: FileChange): void {
    const node = this.#find(path)
    if (node?.kind !== 'file') throw new Error(`a write to ${path}, which is no file of this recording`)
    node.waiting.push(made)
    this.#changes += 1
  }

  #sync(path: string, beganAt: number): void {
    const node = path === '' ? this.#root : this.#find(path)
    if (node?.kind === 'file') {
      const [safe, waiting] = split(node.waiting, beganAt)
      node.safe = applied(node.safe, safe)
      node.waiting = waiting
    }
    if (node?.kind === 'folder') {
      const [safe, waiting] = split(node.waiting, beganAt)
      for (const { name, node: named } of safe) setName(node.safe, name, named)
      node.waiting = waiting
    }
  }

  #name(path: string, node: Node | null, endedAt: number): void {
    const [parent, name] = this.#placeOf(path)
    setName(parent.now, name, node)
    parent.waiting.push({ endedAt, name, node })
    this.#changes += 1
  }

  /** Relative; undefined for what lies elsewhere. */
  #inside(path: string): string | undefined {
    if (path === this.#folder || path === `${this.#folder}/`) return ''
    if (!path.startsWith(`${this.#folder}/`)) return undefined
    return path.slice(this.#folder.length + 1).replace(/\/+$/, '')
  }

  #find(path: string): Node | undefined {
    const [parent, name] = this.#placeOf(path)
    return parent.now.get(name)
  }

  #placeOf(path: string): [FolderNode, string] {
    const names = path.split('/')
    let parent = this.#root
    for (const name of names.slice(0, -1)) {
      const next = parent.now.get(name)
      if (next?.kind !== 'folder') throw new Error(`${path} lies in no folder of this recording`)
      parent = next
    }
    return [parent, names.at(-1)!]
  }

  #sizeOf(path: string | undefined): number {
    const node = path === undefined ? undefined : this.#find(path)
    return node?.kind === 'file' ? applied(node.safe, node.waiting).length : 0
  }
}

const isScratch = (path: string): boolean => path.endsWith('-shm')
const newFolder = (): FolderNode => ({ kind: 'folder', safe: new Map(), now: new Map(), waiting: [] })
function setName(names: Map<string, Node>, name: string, node: Node | null): void {
  if (node) names.set(name, node)
  else names.delete(name)
}
function split<T extends { readonly endedAt: number }>(changes: readonly T[], before: number): [T[], T[]] {
  return [changes.filter(({ endedAt }) => endedAt <= before), changes.filter(({ endedAt }) => endedAt > before)]
}

function applied(bytes: Buffer, changes: readonly FileChange[]): Buffer {
  if (changes.length === 0) return bytes
  let length = bytes.length
  let most = length
  for (const change of changes) {
    length = 'length' in change ? change.length : Math.max(length, change.offset + change.bytes.length)
    most = Math.max(most, length)
  }
  const now = Buffer.alloc(most)
  bytes.copy(now)
  for (const change of changes) {
    if ('bytes' in change) change.bytes.copy(now, change.offset)
    else now.fill(0, change.length)
  }
  return now.subarray(0, length)
}

function writeFolder({ safe, waiting }: FolderNode, target: string, fate: Fate, random: () => number): void {
  mkdirSync(target, { mode: 0o700 })
  const names = new Map(safe)
  for (const { name, node } of survivors(waiting, fate, random)) setName(names, name, node)
  for (const [name, node] of names) {
    const path = join(target, name)
    if (node.kind === 'folder') writeFolder(node, path, fate, random)
    else writeFileSync(path, fileAfter(node, fate, random), { mode: 0o600 })
  }
}

function fileAfter(node: FileNode, fate: Fate, random: () => number): Buffer {
  const kept = survivors(node.waiting, fate, random)
  if (fate !== 'some') return applied(node.safe, kept)
  const inAnyOrder =
    random() < 0.5
      ? kept
      : kept
          .map((change) => ({ change, at: random() }))
          .sort((a, b) => a.at - b.at)
          .map(({ change }) => change)
  return applied(
    node.safe,
    inAnyOrder.map((change) =>
      'bytes' in change && random() < 0.3 ? { ...change, bytes: tornOff(change.bytes, random) } : change,
    ),
  )
}
function survivors<T>(changes: readonly T[], fate: Fate, random: () => number): readonly T[] {
  if (fate === 'some') return changes.filter(() => random() < 0.6)
  return fate === 'all kept' ? changes : []
}
const tornOff = (bytes: Buffer, random: () => number): Buffer => {
  const at = Math.floor(random() * (bytes.length + 1))
  return bytes.subarray(0, random() < 0.5 ? at : at - (at % 512))
}
