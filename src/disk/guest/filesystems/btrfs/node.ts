import { bytes, struct, u8, u32le, u64le } from '../../../../base/struct.ts'
import { isIntact } from './checksum.ts'
import { refuse, type Superblock } from './superblock.ts'

/** A node of a tree; little-endian. Source: btrfs documentation, "On-disk format", "B-tree"; Linux include/uapi/linux/btrfs_tree.h. */
const header = struct('btrfs node', {
  fsid: bytes(32, 16),
  address: u64le(48),
  generation: u64le(80),
  count: u32le(96),
  level: u8(100),
})
const HEADER_BYTES = 101
const KEY_BYTES = 17
const POINTER_BYTES = KEY_BYTES + 16
const ITEM_BYTES = KEY_BYTES + 8
const HIGH = 2 ** 32

/** What items are ordered by. Of an item, numbers of 2^53 and more are not exact: none that is looked for is so large. */
export interface Key {
  readonly object: number
  readonly type: number
  /** Infinity: behind all that have the same object and type. */
  readonly offset: number
}

export interface Item extends Key {
  /** A view of a node that others read as well. */
  readonly data: Uint8Array
}

/** What met every limit: keys ascend, and what items hold lies inside. */
export interface Node {
  readonly address: number
  readonly generation: number
  readonly level: number
  readonly count: number
  readonly view: DataView
}

/** @throws ServiceError `invalid-image` */
export function parseNode(input: Uint8Array, address: number, { raw, metadataFsid }: Superblock): Node {
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw refuse('malformed', `the node at ${address}: ${problem}`, { address })
  }
  if (!isIntact(input, raw.checksumType)) throw refuse('damaged', `the checksum of the node at ${address} is wrong`, { address })
  const { fsid, count, level, generation, address: own } = header.parse(input)
  check(Buffer.compare(fsid, metadataFsid) === 0, 'it is of another file system')
  check(own === address, `bytenr is ${own}`)
  const node = { address, generation, level, count, view: new DataView(input.buffer, input.byteOffset, input.byteLength) }
  const each = level === 0 ? ITEM_BYTES : POINTER_BYTES
  check(HEADER_BYTES + count * each <= input.length, `nritems is ${count}`)
  for (let index = 1; index < count; index += 1) {
    check(compareKeys(node, index - 1, node, index) < 0, `key ${index} does not ascend`)
  }
  if (level > 0) {
    check(count > 0, 'it points nowhere')
    return node
  }
  let end = input.length
  const itemsEnd = HEADER_BYTES + count * ITEM_BYTES
  for (let index = 0; index < count; index += 1) {
    const [start, length] = placeOf(node, index)
    check(start >= itemsEnd && start + length <= end, `item ${index} has ${length} bytes at ${start}`)
    end = start
  }
  return node
}

/** Of an item's bytes in the node. */
function placeOf({ view }: Node, index: number): [start: number, length: number] {
  const at = HEADER_BYTES + index * ITEM_BYTES + KEY_BYTES
  return [HEADER_BYTES + view.getUint32(at, true), view.getUint32(at + 4, true)]
}

const keyAt = ({ level }: Node, index: number): number => HEADER_BYTES + index * (level === 0 ? ITEM_BYTES : POINTER_BYTES)

export function itemOf(leaf: Node, index: number): Item {
  const { view } = leaf
  const at = keyAt(leaf, index)
  const [start, length] = placeOf(leaf, index)
  return {
    object: view.getUint32(at + 4, true) * HIGH + view.getUint32(at, true),
    type: view.getUint8(at + 8),
    offset: view.getUint32(at + 13, true) * HIGH + view.getUint32(at + 9, true),
    data: new Uint8Array(view.buffer, view.byteOffset + start, length),
  }
}

/** @throws ServiceError `invalid-image` where it is 2^53 or more */
export function pointerOf(node: Node, index: number): { address: number; generation: number } {
  const at = keyAt(node, index) + KEY_BYTES
  const word = (from: number) => node.view.getUint32(from + 4, true) * HIGH + node.view.getUint32(from, true)
  const [address, generation] = [word(at), word(at + 8)]
  if (!Number.isSafeInteger(address) || !Number.isSafeInteger(generation)) {
    throw refuse('malformed', `the node at ${node.address}: pointer ${index} leads to ${address}`, { address: node.address })
  }
  return { address, generation }
}

/** The last key that is not behind `key`, or −1. */
export function lastNotAfter(node: Node, { object, type, offset }: Key): number {
  const { view } = node
  let [low, high] = [0, node.count]
  while (low < high) {
    const middle = (low + high) >>> 1
    const at = keyAt(node, middle)
    const order =
      view.getUint32(at + 4, true) * HIGH + view.getUint32(at, true) - object ||
      view.getUint8(at + 8) - type ||
      view.getUint32(at + 13, true) * HIGH + view.getUint32(at + 9, true) - offset
    if (order <= 0) low = middle + 1
    else high = middle
  }
  return low - 1
}

/** Exact, whatever the numbers. */
export function compareKeys(a: Node, aIndex: number, b: Node, bIndex: number): number {
  const [from, to] = [keyAt(a, aIndex), keyAt(b, bIndex)]
  for (const at of [4, 0]) {
    const order = a.view.getUint32(from + at, true) - b.view.getUint32(to + at, true)
    if (order !== 0) return order
  }
  const types = a.view.getUint8(from + 8) - b.view.getUint8(to + 8)
  if (types !== 0) return types
  for (const at of [13, 9]) {
    const order = a.view.getUint32(from + at, true) - b.view.getUint32(to + at, true)
    if (order !== 0) return order
  }
  return 0
}
