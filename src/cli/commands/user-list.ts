import { command } from '../command.ts'

export const userList = command({
  name: 'user list',
  summary: 'List the users (administrators)',
  arguments: {},
  options: {},
  examples: [['imprint user list', 'names and ids']],
  exits: [4, 7],
  async run(_, { out, connect }) {
    const { identity } = await connect()
    const found = await identity.list('users')
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
