import { command } from '../command.ts'
import { openConsole } from '../console/open-console.ts'

export const console = command({
  name: 'console',
  summary: 'Sit down at the serial console of an instance',
  description: [
    'Every key goes to the guest, Ctrl-C too; Ctrl-] leaves. One console at a time: a newer one takes it over. What is no terminal',
    'may stand in its place: input is typed, what the guest says is written, and it ends a second after both have.',
  ].join('\n'),
  arguments: { instance: { help: 'name, id, or how an id begins' } },
  options: {},
  examples: [
    ['imprint console web', 'then Enter, for a prompt'],
    ['echo uptime | imprint console web', 'in a script'],
  ],
  exits: [3, 4, 5, 7],
  async run({ instance: wanted }, { out, connect, signal }) {
    const { compute } = await connect()
    const instance = await compute.find(wanted)
    await openConsole(compute, instance, { input: process.stdin, output: process.stdout }, out, signal)
    return 0
  },
})
