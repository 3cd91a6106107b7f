import { formatBytes } from '../../base/units.ts'
import { command } from '../command.ts'

export const storeStats = command({
  name: 'store stats',
  summary: 'Show what the store holds, and what deduplication and compression save',
  arguments: {},
  options: {},
  examples: [['imprint store stats', 'for administrators']],
  exits: [4, 7],
  async run(_, { out, connect }) {
    const { imprint } = await connect()
    const { raw, stats } = await imprint.storeStats()
    out.result(raw, () => {
      const [stored, data] = [stats.number('storedBytes'), stats.number('chunkDataBytes')]
      const counters = stats.shape('counters')
      const [added, known, zero] = [counters.number('chunksNew'), counters.number('chunksKnown'), counters.number('chunksZero')]
      out.record([
        ['chunk size', formatBytes(stats.number('chunkBytes'))],
        ['manifests', stats.number('manifests')],
        ['chunks', stats.number('chunks')],
        ['packs', stats.number('packs')],
        ['stored', formatBytes(stored)],
        ['stands for', `${formatBytes(data)}${stored > 0 ? ` (${(data / stored).toFixed(1)} times as much)` : ''}`],
        ['since the start', `${added} chunks new, ${known} known, ${zero} zero; ${counters.number('collections')} collections`],
      ])
    })
    return 0
  },
})
