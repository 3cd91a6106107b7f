import type { Item } from './node.ts'

/** An item that is not as the tree has it; null: it is gone. */
export interface Change {
  readonly offset: number
  readonly data: Uint8Array | null
}

/** What replaying a log changes of a tree, by objects and types, in the order of offsets. */
export class Changes {
  readonly #groups = new Map<string, Change[]>()
  #count = 0
  #bytes = 0

  /** How many there are, and the bytes of those that ever were. */
  get count(): number {
    return this.#count
  }
  get bytes(): number {
    return this.#bytes
  }

  of(object: number, type: number): readonly Change[] {
    return this.#groups.get(`${object}/${type}`) ?? []
  }

  /** @param data null: the item is gone */
  set(object: number, type: number, offset: number, data: Uint8Array | null): void {
    const key = `${object}/${type}`
    const group = this.#groups.get(key) ?? []
    this.#groups.set(key, group)
    const at = firstFrom(group, offset)
    const isThere = group[at]?.offset === offset
    group.splice(at, isThere ? 1 : 0, { offset, data })
    if (!isThere) this.#count += 1
    this.#bytes += data?.length ?? 0
  }
}

/** The first that is not before `offset`. */
export function firstFrom(group: readonly Change[], offset: number): number {
  let [low, high] = [0, group.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (group[middle]!.offset < offset) low = middle + 1
    else high = middle
  }
  return low
}

/** The items of one object and type as they are with the changes; those that follow are left out. */
export async function* changed(
  items: AsyncIterable<Item>,
  changes: Changes,
  { object, type, offset }: Pick<Item, 'object' | 'type' | 'offset'>,
): AsyncGenerator<Item> {
  const group = changes.of(object, type)
  let next = firstFrom(group, offset)
  for await (const item of items) {
    if (item.object !== object || item.type !== type) break
    for (; next < group.length && group[next]!.offset < item.offset; next += 1) {
      const { offset: own, data } = group[next]!
      if (data) yield { object, type, offset: own, data }
    }
    if (group[next]?.offset !== item.offset) {
      yield item
      continue
    }
    const { data } = group[next]!
    next += 1
    if (data) yield { ...item, data }
  }
  for (; next < group.length; next += 1) {
    const { offset: own, data } = group[next]!
    if (data) yield { object, type, offset: own, data }
  }
}
