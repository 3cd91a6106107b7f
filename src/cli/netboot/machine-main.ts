/** The program of the system that machines start from the network: deploy-system.init runs it, and shows each line of it. */
import { formatBytes } from '../../base/units.ts'
import { safeText } from '../safe-text.ts'
import { reasonOf, runOrder } from './run-order.ts'

const SAY_EVERY_MS = 5000
const { IMPRINT_ORDER = '', IMPRINT_TOKEN = '' } = process.env
const say = (text: string) => process.stdout.write(`${safeText(text)}\n`)
let saidAt = Number.NEGATIVE_INFINITY

try {
  const { target, writtenBytes, sameBytes } = await runOrder({
    url: IMPRINT_ORDER,
    token: IMPRINT_TOKEN,
    sys: '/sys',
    signal: new AbortController().signal,
    onBegin: ({ name }, path) => say(`writing ${name} onto ${path}`),
    onProgress({ phase, doneBytes, totalBytes }) {
      const now = performance.now()
      if (now - saidAt < SAY_EVERY_MS) return
      saidAt = now
      say(`${phase}: ${formatBytes(doneBytes)}${totalBytes === null ? '' : ` of ${formatBytes(totalBytes)}`}`)
    },
  })
  say(
    `${target.path} is written and verified: ${formatBytes(writtenBytes)} of data, ${formatBytes(sameBytes)} were there already`,
  )
} catch (error) {
  say(reasonOf(error).replaceAll('\n', ' '))
  process.exitCode = 1
}
