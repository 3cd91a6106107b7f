import { command } from '../command.ts'

export const events = command({
  name: 'events',
  summary: 'Show what was done to an instance, by whom, and whether it failed',
  arguments: { instance: { help: 'name, id, or how an id begins' } },
  options: {},
  examples: [['imprint events web', 'the newest first']],
  exits: [3, 4, 5, 7],
  async run({ instance: wanted }, { out, connect }) {
    const { compute } = await connect()
    const found = await compute.events((await compute.find(wanted)).id)
    out.result(found, () =>
      out.table(found, [
        { title: 'WHEN', value: ({ startedAt }) => `${startedAt.slice(0, 19)}Z` },
        { title: 'WHAT', value: ({ action }) => action },
        { title: 'RESULT', value: ({ failed }) => (failed ? 'failed' : 'ok'), tone: ({ failed }) => (failed ? 'bad' : 'plain') },
        { title: 'WHO', value: ({ userId }) => userId },
        { title: 'REQUEST', value: ({ requestId }) => requestId },
      ]),
    )
    return 0
  },
})
