import { command } from '../command.ts'
import { showIdentities } from '../identity-table.ts'

export const projectList = command({
  name: 'project list',
  summary: 'List the projects (administrators)',
  arguments: {},
  options: {},
  examples: [['imprint project list', 'names and ids']],
  exits: [4, 7],
  run: (_, context) => showIdentities(context, 'projects'),
})
