import { command } from '../command.ts'
import { showIdentities } from '../identity-table.ts'

export const userList = command({
  name: 'user list',
  summary: 'List the users (administrators)',
  arguments: {},
  options: {},
  examples: [['imprint user list', 'names and ids']],
  exits: [4, 7],
  run: (_, context) => showIdentities(context, 'users'),
})
