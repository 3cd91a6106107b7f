/** Fills the cache in a folder until it is killed: `node kill-child.suite.ts FOLDER`. Says so after each chunk. */
import { numberedCopy } from './copies.suite.ts'
import { DiskCache, LEAST_CACHE_BYTES } from './disk-cache.ts'

const cache = await DiskCache.open(process.argv[2]!, LEAST_CACHE_BYTES)
for (let number = Number(process.argv[3]); ; number += 1) {
  await cache.put(numberedCopy(number))
  if (number % 16 === 0) {
    await cache.settled()
    process.stdout.write(`${number}\n`)
  }
}
