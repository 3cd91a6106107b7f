import { command } from '../command.ts'
import { whenOf } from '../export-table.ts'
import { safeText } from '../safe-text.ts'

export const exportRenew = command({
  name: 'export renew',
  summary: 'Let an export end later, or sooner',
  arguments: { id: { help: 'as imprint export list shows it' } },
  options: {
    seconds: {
      type: 'count',
      value: 'SECONDS',
      least: 1,
      most: 2_592_000,
      help: 'from now until it ends by itself (default: an hour)',
    },
  },
  examples: [['imprint export renew 9f2c1e8a-… --seconds 86400', 'for another day']],
  exits: [3, 4, 5, 7],
  async run({ id, seconds }, { out, connect }) {
    const { imprint } = await connect()
    const renewed = await imprint.renewExport(id, seconds)
    out.result(renewed, () => out.line(`Export ${safeText(renewed.id)} ends at ${whenOf(renewed.expiresAt)}.`))
    return 0
  },
})
