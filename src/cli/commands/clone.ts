import { command } from '../command.ts'
import { settled } from '../instance-command.ts'
import { portsOf } from '../instance-table.ts'
import { safeText } from '../safe-text.ts'

export const clone = command({
  name: 'clone',
  summary: 'Make another instance like this one, on its disk as it is at this moment',
  description: 'It runs on meanwhile. The new one has an id, an address and ports of its own.',
  arguments: {
    instance: { help: 'name, id, or how an id begins' },
    name: { help: 'of the new one (default: that of the first, with -clone)', optional: true },
  },
  options: { noWait: { type: 'flag', help: 'return as soon as it is begun' } },
  examples: [['imprint clone web web-test', 'to try something on it']],
  exits: [3, 4, 5, 6, 7],
  async run({ instance: wanted, name, noWait }, { out, connect, signal }) {
    const { compute, imprint } = await connect()
    const first = await compute.find(wanted)
    const id = await imprint.clone(first.id, name ?? `${first.name}-clone`)
    const made = noWait ? await compute.show(id) : await settled(compute, id, signal)
    out.result(made, () => {
      const ports = made ? portsOf(made) : ''
      out.line(`${safeText(made?.name ?? id)} (${id}) ${noWait ? 'is being made' : 'runs'}${ports ? `: ${ports}` : ''}.`)
    })
    return 0
  },
})
