import { MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { type Changes, changed, firstFrom } from './changes.ts'
import { compareKeys, type Item, itemOf, type Key, lastNotAfter, type Node, parseNode, pointerOf } from './node.ts'
import { refuse, type Superblock } from './superblock.ts'

/** Of nodes: a directory and its inodes lie in a few. */
const MAX_NODE_BYTES = 4 * MiB

/** Where a tree begins. */
export interface TreeRoot {
  readonly address: number
  readonly level: number
  readonly generation: number
  /** What a log that was not replayed makes of it. */
  readonly changes?: Changes
}

/** Where logical bytes are on the volume: each copy of them. @throws ServiceError `invalid-image` | `unsupported` */
export type Locate = (address: number, length: number) => Promise<readonly number[]>

/** A node on the way down, and which of its entries was taken. */
interface Step {
  readonly node: Node
  readonly index: number
  /** The first key that is right of this node, where there is one. */
  readonly bound: Place | undefined
}
interface Place {
  readonly node: Node
  readonly index: number
}

/**
 * Reads trees. A child begins with the key that its parent has for it, ends before the next one, and is one level lower: so no walk
 * comes to a node twice, and none goes deeper than the root says.
 */
export class Trees {
  readonly #volume: BlockSource
  readonly #superblock: Superblock
  readonly #locate: Locate
  readonly #maxNodes: number
  /** By their addresses, in order of use. */
  readonly #nodes = new Map<number, Promise<Node>>()

  constructor(volume: BlockSource, superblock: Superblock, locate: Locate) {
    this.#volume = volume
    this.#superblock = superblock
    this.#locate = locate
    this.#maxNodes = MAX_NODE_BYTES / superblock.raw.nodeBytes
  }

  async find(root: TreeRoot, key: Key): Promise<Item | undefined> {
    const group = root.changes?.of(key.object, key.type) ?? []
    const change = group[firstFrom(group, key.offset)]
    if (change?.offset === key.offset) return change.data ? { ...key, data: change.data } : undefined
    const item = await this.#floor(root, key)
    return item && isSame(item, key) ? item : undefined
  }

  /** The last item that is not behind `key`; of a tree with changes, at least where that has the same object and type. */
  async floor(root: TreeRoot, key: Key): Promise<Item | undefined> {
    const group = root.changes?.of(key.object, key.type) ?? []
    let item = await this.#floor(root, key)
    if (group.length === 0) return item
    let at = firstFrom(group, key.offset + 1) - 1
    while (group[at]?.data === null) at -= 1
    const last = group[at]
    const isOf = (each: Item | undefined): each is Item => each?.object === key.object && each.type === key.type
    while (isOf(item) && item.offset > (last?.offset ?? -1) && group[firstFrom(group, item.offset)]?.offset === item.offset) {
      item = await this.#floor(root, { ...key, offset: item.offset - 1 })
    }
    return last?.data && !(isOf(item) && item.offset > last.offset) ? { ...key, offset: last.offset, data: last.data } : item
  }

  async #floor(root: TreeRoot, key: Key): Promise<Item | undefined> {
    const { node, index } = (await this.#path(root, key)).at(-1)!
    return index < 0 ? undefined : itemOf(node, index)
  }

  /** Every item from `key` on; of a tree with changes those of the same object and type. */
  from(root: TreeRoot, key: Key): AsyncIterable<Item> {
    const items = this.#from(root, key)
    return root.changes ? changed(items, root.changes, key) : items
  }

  async *#from(root: TreeRoot, key: Key): AsyncGenerator<Item> {
    const path = await this.#path(root, key)
    const { node, index } = path.at(-1)!
    const isHere = index >= 0 && isSame(itemOf(node, index), key)
    for (let at = isHere ? index : index + 1; at < node.count; at += 1) yield itemOf(node, at)
    path.pop()
    while (path.length > 0) {
      const { node: parent, index: taken, bound } = path.pop()!
      if (taken + 1 >= parent.count) continue
      let step: Step = { node: parent, index: taken + 1, bound }
      while (step.node.level > 0) {
        path.push(step)
        step = await this.#down(step, undefined)
      }
      for (let at = 0; at < step.node.count; at += 1) yield itemOf(step.node, at)
    }
  }

  /** From the root to the leaf in which `key` is or would be; the leaf's index is −1 where all of the tree is behind the key. */
  async #path(root: TreeRoot, key: Key): Promise<Step[]> {
    const node = await this.#node(root)
    const found = lastNotAfter(node, key)
    const path: Step[] = [{ node, index: node.level > 0 ? Math.max(0, found) : found, bound: undefined }]
    for (let step = path[0]!; step.node.level > 0; path.push(step)) step = await this.#down(step, key)
    return path
  }

  async #down({ node: parent, index, bound }: Step, key: Key | undefined): Promise<Step> {
    const node = await this.#node({ ...pointerOf(parent, index), level: parent.level - 1 })
    const end = index + 1 < parent.count ? { node: parent, index: index + 1 } : bound
    const isInside =
      node.count > 0 &&
      compareKeys(node, 0, parent, index) === 0 &&
      (!end || compareKeys(node, node.count - 1, end.node, end.index) < 0)
    if (!isInside) {
      const problem = `the node at ${node.address} has other keys than the one above it says, which is at ${parent.address}`
      throw refuse('malformed', problem, { address: node.address })
    }
    const found = key ? lastNotAfter(node, key) : 0
    return { node, index: node.level > 0 ? Math.max(0, found) : found, bound: end }
  }

  async #node({ address, level, generation }: TreeRoot): Promise<Node> {
    const known = this.#nodes.get(address)
    this.#nodes.delete(address)
    const loading = known ?? this.#load(address, level, generation)
    this.#nodes.set(address, loading) // as the last that was used
    if (known) return asExpected(await known, level, generation)
    for (const oldest of this.#nodes.keys()) {
      if (this.#nodes.size <= this.#maxNodes) break
      this.#nodes.delete(oldest)
    }
    try {
      return await loading
    } catch (error) {
      if (this.#nodes.get(address) === loading) this.#nodes.delete(address) // another pointer may expect another node
      throw error
    }
  }

  /** The first copy that is what it should be. */
  async #load(address: number, level: number, generation: number): Promise<Node> {
    const { nodeBytes, sectorBytes } = this.#superblock.raw
    if (address % sectorBytes !== 0) throw refuse('malformed', `a node at ${address}, which is inside a sector`, { address })
    const copies = await this.#locate(address, nodeBytes)
    let problem: unknown
    for (const offset of copies) {
      try {
        if (offset + nodeBytes > this.#volume.size) {
          throw refuse('truncated', `the node at ${address} lies beyond the end of the volume`, { address, offset })
        }
        const bytes = new Uint8Array(await this.#volume.read(offset, nodeBytes)) // no view: what is kept is what it costs
        return asExpected(parseNode(bytes, address, this.#superblock), level, generation)
      } catch (error) {
        problem ??= error
      }
    }
    throw problem
  }
}

function asExpected(node: Node, level: number, generation: number): Node {
  if (node.level === level && node.generation === generation) return node
  const problem = `the node at ${node.address} has level ${node.level} and generation ${node.generation}, and ${level} and ${generation} are expected`
  throw refuse('malformed', problem, { address: node.address })
}

const isSame = (item: Item, key: Key): boolean =>
  item.object === key.object && item.type === key.type && item.offset === key.offset
