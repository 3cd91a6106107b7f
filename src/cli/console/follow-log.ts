import { setTimeout as wait } from 'node:timers/promises'
import type { ComputeClient } from '../client/compute-client.ts'
import { cancelled } from '../client/http-client.ts'

const LOOK_MS = 500
/** By the end of what was known its place in the newer text is found. */
const OVERLAP = 1024

/**
 * What the guest says, as it comes; ends when its machine is off.
 * @param lines of what it said before; absent: all that is kept
 */
export async function* followLog(
  compute: ComputeClient,
  id: string,
  lines: number | undefined,
  signal: AbortSignal,
): AsyncIterable<string> {
  let known = await compute.consoleLog(id)
  yield lines === undefined ? known : lastLines(known, lines)
  for (;;) {
    const { status } = await compute.look(id, signal)
    const text = await compute.consoleLog(id)
    const news = newsOf(known, text)
    if (news !== '') yield news
    known = text
    if (status === 'SHUTOFF' || status === 'ERROR') return
    await wait(LOOK_MS, undefined, { signal }).catch(() => {
      throw cancelled()
    })
  }
}

/** What came after `known`, of a log that loses its beginning: all of it where so much was said that nothing is known any more. */
export function newsOf(known: string, text: string): string {
  if (text.startsWith(known)) return text.slice(known.length)
  const end = known.slice(-OVERLAP)
  const at = text.lastIndexOf(end)
  return at < 0 ? text : text.slice(at + end.length)
}

function lastLines(text: string, lines: number): string {
  const all = text.split('\n')
  return all.slice(-(lines + (text.endsWith('\n') ? 1 : 0)) || all.length).join('\n')
}
