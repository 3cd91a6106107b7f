/** Waits until each has ended, one way or the other: the memory that they write to is free then. @throws the first failure */
export async function allEnded(works: readonly Promise<void>[]): Promise<void> {
  for (const ended of await Promise.allSettled(works)) if (ended.status === 'rejected') throw ended.reason
}
