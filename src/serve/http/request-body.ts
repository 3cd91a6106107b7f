import type { IncomingMessage } from 'node:http'

/**
 * The body as it arrives. Who stops taking it ends the iterator (`for await` does): what is still to come is then read and thrown
 * away, since a client that cannot send on does not look for its answer.
 */
export async function* piecesOf(request: IncomingMessage): AsyncGenerator<Uint8Array> {
  try {
    yield* request.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>
  } finally {
    request.resume()
  }
}
