import { command } from '../command.ts'

export const projectList = command({
  name: 'project list',
  summary: 'List the projects (administrators)',
  arguments: {},
  options: {},
  examples: [['imprint project list', 'names and ids']],
  exits: [4, 7],
  async run(_, { out, connect }) {
    const { identity } = await connect()
    const found = await identity.list('projects')
    out.result(found, () =>
      out.table(found, [
        { title: 'ID', value: ({ id }) => id },
        { title: 'NAME', value: ({ name }) => name },
        {
          title: 'ENABLED',
          value: ({ enabled }) => (enabled ? 'yes' : 'no'),
          tone: ({ enabled }) => (enabled ? 'plain' : 'bad'),
        },
      ]),
    )
    return 0
  },
})
