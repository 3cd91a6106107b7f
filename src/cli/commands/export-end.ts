import { command } from '../command.ts'
import { safeText } from '../safe-text.ts'

export const exportEnd = command({
  name: 'export end',
  summary: 'End exports, and cut off who reads them',
  arguments: { ids: { help: 'as imprint export list shows them', many: true } },
  options: {},
  examples: [['imprint export end 9f2c1e8a-…', 'now, and not when it expires']],
  exits: [3, 4, 7],
  async run({ ids }, { out, connect }) {
    const { imprint } = await connect()
    for (const id of ids) await imprint.endExport(id)
    out.result({ ended: ids }, () => {
      for (const id of ids) out.line(`Ended export ${safeText(id)}.`)
    })
    return 0
  },
})
