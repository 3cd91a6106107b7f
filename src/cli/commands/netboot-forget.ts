import { command } from '../command.ts'
import { safeText } from '../safe-text.ts'

export const netbootForget = command({
  name: 'netboot forget',
  summary: 'Let a machine get an image from the network no more',
  description: 'One that is being written stays unfinished, and does not start from its disk.',
  arguments: { deployment: { help: 'its id, as imprint netboot list shows it' } },
  options: {},
  examples: [['imprint netboot forget 9f2c1e8a-…', 'the machine starts from its disk again, if it has a system']],
  exits: [3, 4, 7],
  async run({ deployment }, { out, connect }) {
    const { imprint } = await connect()
    await imprint.forgetDeployment(deployment)
    out.result({ id: deployment }, () => out.line(`Forgot ${safeText(deployment)}.`))
    return 0
  },
})
