import { command } from '../command.ts'
import { printExports } from '../export-table.ts'

export const exportList = command({
  name: 'export list',
  summary: 'List the exports of your project',
  arguments: {},
  options: {},
  examples: [['imprint export list', 'those that have not ended; their addresses were shown once']],
  exits: [4, 7],
  async run(_, { out, connect }) {
    const { imprint } = await connect()
    const exports = await imprint.exports()
    out.result({ exports }, () => printExports(out, exports))
    return 0
  },
})
