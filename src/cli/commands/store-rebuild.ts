import { command } from '../command.ts'
import { followJob } from '../store-job.ts'

export const storeRebuild = command({
  name: 'store rebuild',
  summary: 'Make the index of the store again from the packs themselves',
  arguments: {},
  options: {},
  examples: [['imprint store rebuild', 'when imprint store check finds index-mismatch']],
  exits: [4, 5, 7],
  async run(_, context) {
    const { raw, result } = await followJob('rebuild', {}, context)
    context.out.result(raw, () =>
      context.out.line(`Indexed ${result.number('chunks')} chunks in ${result.number('packs')} packs.`),
    )
    return 0
  },
})
