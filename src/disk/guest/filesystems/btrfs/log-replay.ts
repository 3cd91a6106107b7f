import { MiB } from '../../../../base/units.ts'
import { Changes } from './changes.ts'
import { hashOfName, type NamedItem, namedIn } from './directory.ts'
import { referencesIn, withoutReference } from './inode-references.ts'
import { itemKey, TYPES } from './keys.ts'
import {
  entryOf,
  extentEnd,
  INODE,
  inodeView,
  KIND,
  kindOf,
  referenceOf,
  resized,
  setWord,
  textOf,
  viewOf,
  withoutNames,
  wordAt,
} from './log-items.ts'
import type { Item } from './node.ts'
import type { Subvolume, Subvolumes } from './subvolumes.ts'
import { refuse, type Superblock } from './superblock.ts'
import type { TreeRoot, Trees } from './trees.ts'

/**
 * The log: what was synced after the last commit, a tree of changed inodes for each subvolume. It is replayed in memory as the kernel
 * replays it when it mounts, in the same passes: inodes with what is gone from them, entries of directories, then all the rest.
 * Source: Linux fs/btrfs/tree-log.c.
 */
const MAX_ITEMS = 100_000
const MAX_BYTES = 16 * MiB
const MAX_CHANGES = 200_000
/** Of items that are looked up, and of 32 bytes of those that are gone through. */
const MAX_STEPS = 2_000_000
const NODE_LEVEL_AT = 238
const ADDRESS_AT = 176
const GENERATION_AT = 160
/** The subvolumes that the log changes, with what. @throws ServiceError where the log is damaged, too large, or has what is not known here */
export async function replayedLog(
  superblock: Superblock,
  trees: Trees,
  subvolumes: Subvolumes,
): Promise<ReadonlyMap<number, Changes>> {
  const { logRoot, logRootLevel, generation, sectorBytes } = superblock.raw
  const replays: Replay[] = []
  const budget: Budget = { items: 0, bytes: 0, steps: 0 }
  for await (const { type, offset, data } of trees.from(
    { address: logRoot, level: logRootLevel, generation: generation + 1 },
    itemKey(0, 0, 0),
  )) {
    if (type !== TYPES.root) continue
    const subvolume = await subvolumes.find(offset)
    if (!subvolume) continue
    const log = await itemsOf(trees, rootIn(data), budget)
    replays.push(new Replay(trees, subvolume, { log, sectorBytes, budget }))
  }
  for (const pass of ['inodes', 'entries', 'rest'] as const) for (const each of replays) await each.run(pass)
  return new Map(replays.map(({ subvolume, changes }) => [subvolume.number, changes]))
}

/** What was used of the limits, by all subvolumes. */
interface Budget {
  items: number
  bytes: number
  steps: number
}

function rootIn(data: Uint8Array): TreeRoot {
  if (data.length <= NODE_LEVEL_AT) throw refuse('malformed', 'the root of a log is cut off')
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const [address, generation] = [ADDRESS_AT, GENERATION_AT].map((at) => wordAt(view, at))
  return { address: address!, generation: generation!, level: data[NODE_LEVEL_AT]! }
}

async function itemsOf(trees: Trees, root: TreeRoot, budget: Budget): Promise<readonly Item[]> {
  const items: Item[] = []
  for await (const item of trees.from(root, itemKey(0, 0, 0))) {
    budget.items += 1
    budget.bytes += item.data.length
    if (budget.items > MAX_ITEMS || budget.bytes > MAX_BYTES)
      throw refuse('malformed', `the log has more than ${MAX_ITEMS} items, or ${MAX_BYTES} bytes`)
    items.push({ ...item, data: item.data.slice() })
  }
  return items
}

/** Of one subvolume. */
class Replay {
  readonly subvolume: Subvolume
  readonly changes = new Changes()
  readonly #trees: Trees
  readonly #sectorBytes: number
  readonly #log: readonly Item[]
  readonly #budget: Budget
  readonly #byKey: ReadonlyMap<string, Item>
  /** Every name that the log has of an inode in a directory. */
  readonly #references: ReadonlySet<string>
  /** By directories. */
  readonly #ranges: ReadonlyMap<number, readonly Item[]>
  /** Whose links are counted in the end. */
  readonly #recount = new Set<number>()

  constructor(
    trees: Trees,
    subvolume: Subvolume,
    { log, sectorBytes, budget }: { log: readonly Item[]; sectorBytes: number; budget: Budget },
  ) {
    this.subvolume = { ...subvolume, changes: this.changes }
    this.#trees = trees
    this.#sectorBytes = sectorBytes
    this.#budget = budget
    this.#log = log
    this.#byKey = new Map(log.map((item) => [keyOf(item.object, item.type, item.offset), item]))
    this.#references = new Set(
      log
        .filter(({ type }) => isReference(type))
        .flatMap((item) => referencesIn(item).map(({ parent, name }) => nameKey(item.object, parent, name))),
    )
    this.#ranges = Map.groupBy(
      log.filter(({ type }) => type === TYPES.directoryLogIndex),
      ({ object }) => object,
    )
  }

  async run(pass: 'inodes' | 'entries' | 'rest'): Promise<void> {
    let isIgnored = false
    for (const item of this.#log) {
      if (this.changes.count > MAX_CHANGES) throw refuse('malformed', `the log changes more than ${MAX_CHANGES} items`)
      if (item.type === TYPES.inode) {
        isIgnored = inodeView(item.data).getUint32(INODE.links, true) === 0 // a file without a name, which is gone after a crash
        if (pass === 'inodes' && !isIgnored) await this.#replayInode(item)
      }
      if (isIgnored) continue
      if (pass === 'entries' && item.type === TYPES.directoryIndex) await this.#replayEntry(item)
      if (pass !== 'rest') continue
      if (item.type === TYPES.attribute) this.#set(item, item.data)
      else if (isReference(item.type)) await this.#replayReferences(item)
      else if (item.type === TYPES.extentData) await this.#replayExtent(item)
    }
    if (pass === 'rest') for (const inode of this.#recount) await this.#recountLinks(inode)
  }

  async #replayInode(item: Item): Promise<void> {
    const { object: inode, data } = item
    const kind = kindOf(data)
    await this.#dropAttributes(inode)
    if (kind === KIND.directory) await this.#dropEntries(inode)
    const known = await this.#inode(inode)
    const made = data.slice()
    const [view, size] = [viewOf(made), wordAt(viewOf(data), INODE.size)]
    const justExists = wordAt(view, INODE.generation) === 0
    if (!known) {
      if (kind === KIND.directory) setWord(view, INODE.size, 0) // grows with what is entered
      this.#set(item, made)
    } else if (justExists) {
      const kept = known.data.slice()
      if (kind === KIND.file && kindOf(kept) === KIND.file && size !== 0) setWord(viewOf(kept), INODE.size, size)
      this.#set(item, kept)
    } else {
      if (kind === KIND.directory) {
        setWord(view, INODE.size, kindOf(known.data) === KIND.directory ? wordAt(viewOf(known.data), INODE.size) : 0)
      }
      this.#set(item, made)
    }
    if (kind === KIND.file) {
      const now = wordAt(viewOf((await this.#inode(inode))!.data), INODE.size)
      await this.#dropExtents(inode, Math.ceil(now / this.#sectorBytes) * this.#sectorBytes, Number.POSITIVE_INFINITY)
    }
    this.#recount.add(inode)
  }

  async #dropAttributes(inode: number): Promise<void> {
    for (const item of await this.#group(inode, TYPES.attribute)) {
      const logged = this.#byKey.get(keyOf(inode, TYPES.attribute, item.offset))
      const names = new Set(logged ? [...namedIn(logged)].map(({ name }) => textOf(name)) : [])
      this.#set(
        item,
        withoutNames(item, ({ name }) => !names.has(textOf(name))),
      )
    }
  }

  /** Of the ranges of entries that the log knows all of, those that it does not have. */
  async #dropEntries(directory: number): Promise<void> {
    for (const { offset: first, data } of this.#ranges.get(directory) ?? []) {
      if (data.length < 8) throw refuse('malformed', `a range of entries of directory ${directory}, in the log, is cut off`)
      const last = viewOf(data).getBigUint64(0, true)
      for (const item of await this.#group(directory, TYPES.directoryIndex, first)) {
        if (BigInt(item.offset) > last) break
        const logged = this.#byKey.get(keyOf(directory, TYPES.directoryIndex, item.offset))
        const kept = new Set(logged ? [...namedIn(logged)].map(({ name }) => textOf(name)) : [])
        for (const entry of [...namedIn(item)]) if (!kept.has(textOf(entry.name))) await this.#unlink(directory, entry)
      }
    }
  }

  async #replayEntry(item: Item): Promise<void> {
    const directory = item.object
    if (!(await this.#inode(directory)))
      throw refuse('malformed', `the log has an entry of directory ${directory}, which is not there`)
    for (const entry of namedIn(item)) {
      if (entry.type !== TYPES.inode)
        throw refuse('malformed', `the log has an entry of type ${entry.type} in directory ${directory}`)
      const there = await this.#inode(entry.object)
      const named = await this.#entryNamed(directory, entry.name)
      const isSame = named?.object === entry.object && named.type === entry.type
      if (named && !isSame && there) await this.#unlink(directory, named)
      const indexed = await this.#find(directory, TYPES.directoryIndex, item.offset)
      const old = indexed ? [...namedIn(indexed)].find(({ name }) => textOf(name) === textOf(entry.name)) : undefined
      const isIndexed = old?.object === entry.object
      if (old && !isIndexed && there) await this.#unlink(directory, old)
      if (isSame && isIndexed) continue
      if (this.#references.has(nameKey(entry.object, directory, entry.name))) continue // entered with the reference
      if (!there || (await this.#entryNamed(directory, entry.name))) continue
      await this.#link(directory, entry.object, entry.name, item.offset)
      const reference = await this.#find(entry.object, TYPES.inodeReference, directory)
      const more = referenceOf(item.offset, entry.name)
      this.#put(entry.object, TYPES.inodeReference, directory, reference ? Buffer.concat([reference.data, more]) : more)
      this.#recount.add(entry.object)
    }
  }

  async #replayReferences(item: Item): Promise<void> {
    const inode = item.object
    const logged = referencesIn(item)
    if (item.type === TYPES.inodeReference && item.offset === inode) return // the root, whose name is in itself
    if (!(await this.#inode(inode))) return
    for (const { parent, index, name } of logged) {
      if (!(await this.#inode(parent))) continue
      const entry = await this.#entryNamed(parent, name)
      const indexed = await this.#find(parent, TYPES.directoryIndex, index)
      const isIndexed =
        indexed !== undefined && [...namedIn(indexed)].some((each) => textOf(each.name) === textOf(name) && each.object === inode)
      if (entry?.object === inode && isIndexed) continue
      await this.#dropOldNames(inode, parent)
      const atIndex = await this.#find(parent, TYPES.directoryIndex, index)
      for (const each of atIndex ? [...namedIn(atIndex)] : []) await this.#unlink(parent, each)
      const conflicting = await this.#entryNamed(parent, name)
      if (conflicting) await this.#unlink(parent, conflicting)
      await this.#link(parent, inode, name, index)
    }
    const old = await this.#find(inode, item.type, item.offset)
    const names = new Set(logged.map(({ parent, name }) => nameKey(inode, parent, name)))
    for (const { parent, name } of old ? referencesIn(old) : []) {
      if (names.has(nameKey(inode, parent, name))) continue
      const entry = await this.#entryNamed(parent, name)
      if (entry?.object === inode) await this.#unlink(parent, entry)
    }
    this.#set(item, item.data)
    this.#recount.add(inode)
  }

  /** Names of an inode in a directory that the log has other names of, and not these. */
  async #dropOldNames(inode: number, parent: number): Promise<void> {
    for (const type of REFERENCES) {
      for (const item of await this.#group(inode, type)) {
        for (const { parent: directory, name } of referencesIn(item)) {
          if (directory !== parent || this.#references.has(nameKey(inode, parent, name))) continue
          const entry = await this.#entryNamed(parent, name)
          if (entry?.object === inode) await this.#unlink(parent, entry)
        }
      }
    }
  }

  async #replayExtent(item: Item): Promise<void> {
    const { object: inode, offset: start, data } = item
    const known = await this.#find(inode, TYPES.extentData, start)
    if (known && Buffer.compare(known.data, data) === 0) return
    const end = extentEnd(item, this.#sectorBytes)
    await this.#dropExtents(inode, start, end)
    this.#set(item, data)
  }

  /** What overlaps is cut; a packed or shared extent is not changed by that, only how much of it is shown. */
  async #dropExtents(inode: number, start: number, end: number): Promise<void> {
    const before = await this.#trees.floor(this.subvolume, itemKey(inode, TYPES.extentData, start))
    const from = before?.object === inode && before.type === TYPES.extentData ? before.offset : start
    for (const item of await this.#group(inode, TYPES.extentData, from)) {
      if (item.offset >= end) break
      const own = extentEnd(item, 1)
      if (own <= start) continue
      const isCut = item.offset < start || own > end
      if (isCut && item.data[20] === 0) {
        if (extentEnd(item, this.#sectorBytes) > end || item.offset < start)
          throw refuse('malformed', `the log cuts an inline extent of inode ${inode}`)
      }
      this.#set(item, null)
      if (item.offset < start) this.#put(inode, TYPES.extentData, item.offset, resized(item.data, 0, start - item.offset))
      if (own > end) this.#put(inode, TYPES.extentData, end, resized(item.data, end - item.offset, own - end))
    }
  }

  async #recountLinks(inode: number): Promise<void> {
    const item = await this.#inode(inode)
    if (!item) return
    let links = 0
    for (const type of REFERENCES) {
      for (const each of await this.#group(inode, type)) links += referencesIn(each).length
    }
    const made = item.data.slice()
    viewOf(made).setUint32(INODE.links, links, true)
    this.#set(item, made)
  }

  async #link(directory: number, inode: number, name: Uint8Array, index: number): Promise<void> {
    const entry = entryOf(inode, (await this.#inode(inode))!.data, name)
    const hash = hashOfName(name)
    const others = await this.#find(directory, TYPES.directoryItem, hash)
    this.#put(directory, TYPES.directoryItem, hash, others ? Buffer.concat([others.data, entry]) : entry)
    this.#put(directory, TYPES.directoryIndex, index, entry)
    await this.#grow(directory, name.length * 2)
  }

  /** Takes an entry away, and the reference of what it led to. */
  async #unlink(directory: number, { name, object: inode, type }: NamedItem): Promise<void> {
    if (type !== TYPES.inode) throw refuse('malformed', `the log takes a subvolume out of directory ${directory}`)
    const hash = hashOfName(name)
    const named = await this.#find(directory, TYPES.directoryItem, hash)
    if (named)
      this.#set(
        named,
        withoutNames(named, (each) => textOf(each.name) === textOf(name)),
      )
    for (const kind of REFERENCES) {
      for (const item of await this.#group(inode, kind)) {
        const reference = referencesIn(item).find((each) => each.parent === directory && textOf(each.name) === textOf(name))
        if (!reference) continue
        const indexed = await this.#find(directory, TYPES.directoryIndex, reference.index)
        if (indexed) this.#set(indexed, null)
        this.#set(item, withoutReference(item, reference))
      }
    }
    this.#recount.add(inode)
    await this.#grow(directory, -name.length * 2)
  }

  async #grow(directory: number, bytes: number): Promise<void> {
    const item = await this.#inode(directory)
    if (!item) return
    const made = item.data.slice()
    setWord(viewOf(made), INODE.size, Math.max(0, wordAt(viewOf(made), INODE.size) + bytes))
    this.#set(item, made)
  }

  async #entryNamed(directory: number, name: Uint8Array): Promise<NamedItem | undefined> {
    const item = await this.#find(directory, TYPES.directoryItem, hashOfName(name))
    return item && [...namedIn(item)].find((each) => textOf(each.name) === textOf(name))
  }

  #step(count: number): void {
    this.#budget.steps += count
    if (this.#budget.steps > MAX_STEPS) throw refuse('malformed', `the log takes more than ${MAX_STEPS} steps`)
  }

  async #inode(inode: number): Promise<Item | undefined> {
    const item = await this.#find(inode, TYPES.inode, 0)
    if (item) inodeView(item.data)
    return item
  }

  #find(object: number, type: number, offset: number): Promise<Item | undefined> {
    this.#step(1)
    return this.#trees.find(this.subvolume, itemKey(object, type, offset))
  }

  /** Items of one object and type, from an offset on, as they are now. */
  async #group(object: number, type: number, from = 0): Promise<readonly Item[]> {
    const found: Item[] = []
    for await (const item of this.#trees.from(this.subvolume, itemKey(object, type, from))) {
      if (item.object !== object || item.type !== type) break
      this.#step(1 + item.data.length / 32)
      found.push(item)
    }
    return found
  }

  #set({ object, type, offset }: Pick<Item, 'object' | 'type' | 'offset'>, data: Uint8Array | null): void {
    this.#put(object, type, offset, data)
  }

  #put(object: number, type: number, offset: number, data: Uint8Array | null): void {
    this.changes.set(object, type, offset, data)
    if (this.changes.bytes > 4 * MAX_BYTES) throw refuse('malformed', `the log changes more than ${4 * MAX_BYTES} bytes`)
  }
}

const REFERENCES: readonly number[] = [TYPES.inodeReference, TYPES.extendedReference]
const isReference = (type: number): boolean => REFERENCES.includes(type)
const keyOf = (object: number, type: number, offset: number): string => `${object}/${type}/${offset}`
const nameKey = (inode: number, parent: number, name: Uint8Array): string => `${inode}/${parent}/${textOf(name)}`
