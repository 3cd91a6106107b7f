import { command } from '../command.ts'
import { safeText } from '../safe-text.ts'

export const keypairRm = command({
  name: 'keypair rm',
  summary: 'Forget a public key; instances that have it keep it',
  arguments: { name: { help: 'name of the key' } },
  options: {},
  examples: [['imprint keypair rm laptop', 'it opens what it opened before']],
  exits: [3, 4, 7],
  async run({ name }, { out, connect }) {
    const { compute } = await connect()
    await compute.removeKeypair(name)
    out.result({ name }, () => out.line(`Removed ${safeText(name)}.`))
    return 0
  },
})
