import { readFile } from 'node:fs/promises'
import { command } from '../command.ts'
import { safeText } from '../safe-text.ts'

export const keypairAdd = command({
  name: 'keypair add',
  summary: 'Add a public key, for instances to be reached by',
  arguments: {
    name: { help: 'how it shall be called' },
    file: { help: 'the public key: ~/.ssh/id_ed25519.pub', completes: 'file' },
  },
  options: {},
  examples: [['imprint keypair add laptop ~/.ssh/id_ed25519.pub', 'then: imprint run debian --key laptop']],
  exits: [4, 5, 7],
  async run({ name, file }, { out, connect }) {
    const publicKey = (await readFile(file, 'utf8')).trim()
    const { compute } = await connect()
    const made = await compute.addKeypair(name, publicKey)
    out.result(made, () => out.line(`Added ${safeText(made.name)}: ${safeText(made.fingerprint)}.`))
    return 0
  },
})
