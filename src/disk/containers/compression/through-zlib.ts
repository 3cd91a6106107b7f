import type { Gunzip, InflateRaw } from 'node:zlib'

/**
 * What comes out of an engine of zlib for what `source` holds, one buffer of each at a time. The engine may end before the source does:
 * what it did not take of the buffer that was being read is told, and the rest of the source is left to the caller.
 * @param onRest told once, before the answer ends; `isEnd`: the source has no more
 */
export async function* throughZlib(
  source: AsyncIterator<Uint8Array>,
  engine: Gunzip | InflateRaw,
  onRest: (rest: Uint8Array, isEnd: boolean) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { promise: ended, resolve: end } = Promise.withResolvers<void>()
  engine.once('end', end)
  engine.once('close', end)
  let isEnded = false
  void ended.then(() => {
    isEnded = true
  })
  const feed = async () => {
    let given = 0
    while (!isEnded) {
      const next = await source.next()
      if (next.done) {
        engine.end()
        await ended
        onRest(new Uint8Array(), true)
        return
      }
      const bytes = Uint8Array.from(next.value) // the source may reuse its own
      given += bytes.length
      await Promise.race([new Promise<void>((resolve) => engine.write(bytes, () => resolve())), ended])
      const left = given - engine.bytesWritten
      if (left > 0) {
        await ended
        onRest(bytes.subarray(bytes.length - left), false)
        return
      }
    }
    onRest(new Uint8Array(), false)
  }
  const feeding = feed().catch((error) => {
    engine.destroy(error instanceof Error ? error : new Error(String(error)))
  })
  try {
    for await (const piece of engine) yield piece as Uint8Array
    await feeding
  } finally {
    engine.destroy()
    await feeding
  }
}
