/**
 * Works on several items at a time and hands out what came of them in their order. What waits to be handed out counts as one of them.
 * An error ends it when its turn comes, and when all that was begun has ended.
 * @param ahead at least 1
 */
export async function* inOrder<Item, Result>(
  items: Iterable<Item> | AsyncIterable<Item>,
  ahead: number,
  work: (item: Item) => Promise<Result>,
): AsyncGenerator<Result> {
  const begun: Promise<Result>[] = []
  try {
    for await (const item of items) {
      const result = work(item)
      result.catch(() => {}) // awaited below; until then a failure must not count as unhandled
      begun.push(result)
      if (begun.length >= ahead) yield await begun.shift()!
    }
    while (begun.length > 0) yield await begun.shift()!
  } finally {
    await Promise.allSettled(begun)
  }
}
