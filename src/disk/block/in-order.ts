/**
 * Does `work` for several items at a time and gives the results in the order of the items. A failure, or a caller who stops early, ends
 * it when what is under way has ended.
 * @param atATime under way, at most; their results wait in memory
 */
export async function* inOrder<Item, Result>(
  items: AsyncIterable<Item> | Iterable<Item>,
  atATime: number,
  work: (item: Item) => Promise<Result>,
): AsyncGenerator<Result> {
  const underWay: Promise<Result>[] = []
  try {
    for await (const item of items) {
      const job = work(item)
      job.catch(() => {}) // awaited below; until then a failure must not count as unhandled
      underWay.push(job)
      if (underWay.length >= atATime) yield await underWay.shift()!
    }
    while (underWay.length > 0) yield await underWay.shift()!
  } finally {
    await Promise.allSettled(underWay)
  }
}
