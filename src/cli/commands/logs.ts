import { command } from '../command.ts'
import { followLog } from '../console/follow-log.ts'
import { plainText } from '../console/plain-text.ts'

export const logs = command({
  name: 'logs',
  summary: 'Show what an instance has said on its serial console',
  description: 'The newest 100 KiB, without what steers a terminal.',
  arguments: { instance: { help: 'name, id, or how an id begins' } },
  options: {
    follow: { type: 'flag', help: 'go on with what it says, until it is off' },
    lines: { type: 'count', value: 'COUNT', least: 1, help: 'only the last lines' },
  },
  examples: [
    ['imprint logs web', 'all that is kept'],
    ['imprint logs web --follow --lines 10', 'as it boots'],
  ],
  exits: [3, 4, 5, 7],
  async run({ instance: wanted, follow, lines }, { out, connect, signal }) {
    const { compute } = await connect()
    const { id } = await compute.find(wanted)
    if (follow) {
      for await (const text of followLog(compute, id, lines, signal)) {
        if (out.json) out.raw(`${JSON.stringify({ output: text })}\n`)
        else out.raw(plainText(text))
      }
      return 0
    }
    const text = await compute.consoleLog(id, lines)
    out.result({ output: text }, () => out.raw(text === '' || text.endsWith('\n') ? plainText(text) : `${plainText(text)}\n`))
    return 0
  },
})
