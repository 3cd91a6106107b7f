/** How long a client would wait for an answer that is not ready, RFC 7240, 4.1 and 4.3. */
const MAX_PARTS = 20
const LONGEST_WAIT_S = 60
const USUAL_WAIT_S = 10

/**
 * What `Prefer` says of an answer that takes long.
 * @returns milliseconds after which the client would rather be told to come again (`respond-async`, by `wait=SECONDS` when); null: it
 *   waits for the answer, however long that takes
 */
export function waitAsked(prefer: string | readonly string[] | undefined): number | null {
  const said = typeof prefer === 'string' ? prefer : prefer?.join(',')
  const parts = (said ?? '').split(',', MAX_PARTS).map((part) => part.split(';', 1)[0]?.trim().toLowerCase())
  if (!parts.includes('respond-async')) return null
  const seconds = parts.map((part) => /^wait\s*=\s*"?(\d{1,9})"?$/.exec(part ?? '')?.[1]).find((found) => found !== undefined)
  return Math.min(seconds === undefined ? USUAL_WAIT_S : Number(seconds), LONGEST_WAIT_S) * 1000
}
