import { setTimeout as wait } from 'node:timers/promises'
import { ServiceError } from '../../base/errors.ts'
import type { ComputeClient } from '../client/compute-client.ts'
import { cancelled } from '../client/http-client.ts'
import { plainText } from '../console/plain-text.ts'
import { shellWord } from '../safe-text.ts'

const LOOK_MS = 1000
/** Under emulation a large system takes minutes; one that has no console never says a word. */
const WITHIN_MS = 900_000
/** getty(8): the host's name and this. */
const PROMPT = /(?:^|\n)[^\n]{0,80}\blogin: /

/**
 * Waits until the guest asks who logs in.
 * @param onLine told of its last line, now and then
 * @returns whether it did within a quarter of an hour
 * @throws ServiceError `conflict` where the machine went off meanwhile; `cancelled`
 */
export async function untilLogin(
  compute: ComputeClient,
  id: string,
  signal: AbortSignal,
  onLine: (line: string) => void,
): Promise<boolean> {
  const deadline = performance.now() + WITHIN_MS
  while (performance.now() < deadline) {
    const text = plainText(await compute.consoleLog(id))
    if (PROMPT.test(text)) return true
    onLine(text.trimEnd().split('\n').at(-1) ?? '')
    const { name, status, fault } = await compute.look(id, signal)
    if (status === 'SHUTOFF' || status === 'ERROR') {
      throw new ServiceError(
        'conflict',
        `${name} went off before it asked for a login${fault ? `: ${fault}` : ''}; see: imprint logs ${shellWord(name)}`,
      )
    }
    await wait(LOOK_MS, undefined, { signal }).catch(() => {
      throw cancelled()
    })
  }
  return false
}
