import { formatBytes } from '../../base/units.ts'
import { command } from '../command.ts'
import { followJob } from '../store-job.ts'

export const storeBackup = command({
  name: 'store backup',
  summary: 'Copy what is new into a backup on the machine of the service',
  description: [
    'Images, records and users; everything that was acknowledged before the backup began is in it. The folder lies on the machine',
    'of the service, outside its data folder; it is made, or holds an earlier backup. The next backup into the same folder copies',
    'only what is new. To restore, copy the folder to where a data folder shall be and start the service there.',
  ].join('\n'),
  arguments: { folder: { help: 'whole path of a folder on the machine of the service' } },
  options: {},
  examples: [
    ['imprint store backup /mnt/backup/imprint', 'every night, say; Ctrl-C stops it, and the next one goes on from there'],
  ],
  exits: [4, 5, 6, 7],
  async run({ folder }, context) {
    const { raw, result } = await followJob('backup', { folder }, context)
    context.out.result(raw, () => {
      const copied = `${result.number('copied')} blobs copied (${formatBytes(result.number('copiedBytes'))})`
      context.out.line(`${copied}, ${result.number('kept')} were there, ${result.number('removed')} removed.`)
    })
    return 0
  },
})
