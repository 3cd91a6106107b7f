import { createGunzip } from 'node:zlib'
import { refusePacked } from '../../packed/damage.ts'
import { throughZlib } from './through-zlib.ts'

const OUTPUT_BYTES = 256 * 1024

/**
 * What is in all members of `body`. Zeros behind the last are padding, as gzip itself takes them; anything else is refused.
 * Source: RFC 1952.
 * @throws ServiceError `invalid-image`; errors of zlib and of `body` pass through
 */
export async function* unpackGzip(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  const source = body[Symbol.asyncIterator]()
  try {
    let [rest, isEnd] = [new Uint8Array() as Uint8Array, false]
    yield* throughZlib(source, createGunzip({ chunkSize: OUTPUT_BYTES }), (left, end) => {
      rest = left
      isEnd = end
    })
    for (;;) {
      if (rest.some((byte) => byte !== 0)) throw refusePacked('gzip', 'malformed', 'something else follows the last member')
      if (isEnd) return
      const next = await source.next()
      if (next.done) return
      rest = next.value
    }
  } finally {
    await source.return?.()
  }
}
