import { formatBytes } from '../../base/units.ts'
import { command } from '../command.ts'
import { followJob } from '../store-job.ts'

export const storeGc = command({
  name: 'store gc',
  summary: 'Remove the chunks that nothing uses any more',
  description: 'The service does this by itself every few hours (imprint serve --collect-hours). Uploads go on meanwhile.',
  arguments: {},
  options: {},
  examples: [['imprint store gc', 'give the space of deleted images back now']],
  exits: [4, 5, 7],
  async run(_, context) {
    const { raw, result } = await followJob('collect', {}, context)
    context.out.result(raw, () => {
      const [freed, chunks] = [formatBytes(result.number('bytesFreed')), result.number('chunksRemoved')]
      const packs = `${result.number('packsRemoved')} packs removed, ${result.number('packsRewritten')} rewritten`
      context.out.line(`Freed ${freed}: ${chunks} chunks; ${packs}.`)
    })
    return 0
  },
})
