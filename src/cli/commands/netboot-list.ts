import { command } from '../command.ts'
import { whenOf } from '../export-table.ts'

export const netbootList = command({
  name: 'netboot list',
  summary: 'List the machines that are, or were this week, written with images from the network',
  arguments: {},
  options: {},
  examples: [['imprint netboot list --json', 'for programs']],
  exits: [4, 7],
  async run(_, { out, connect }) {
    const { imprint } = await connect()
    const deployments = await imprint.deployments()
    out.result({ deployments }, () =>
      out.table(deployments, [
        { title: 'ID', value: ({ id }) => id },
        { title: 'MACHINE', value: ({ machine }) => machine ?? 'any' },
        { title: 'IMAGE', value: ({ image }) => image.name ?? image.id },
        { title: 'TO', value: ({ target }) => target },
        { title: 'STATE', value: ({ state, doneBytes, totalBytes }) => stateOf(state, doneBytes, totalBytes) },
        { title: 'UNTIL', value: ({ expiresAt }) => whenOf(expiresAt) },
        { title: 'MESSAGE', value: ({ message }) => message ?? '' },
      ]),
    )
    return 0
  },
})

const stateOf = (state: string, doneBytes: number, totalBytes: number | null): string =>
  state === 'writing' && totalBytes ? `${state} ${Math.floor((100 * doneBytes) / totalBytes)} %` : state
