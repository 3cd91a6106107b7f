import { command } from '../command.ts'

export const keypairList = command({
  name: 'keypair list',
  summary: 'List your public keys',
  arguments: {},
  options: {},
  examples: [['imprint keypair list', 'yours, in every project']],
  exits: [4, 7],
  async run(_, { out, connect }) {
    const { compute } = await connect()
    const found = await compute.keypairs()
    out.result(found, () => {
      if (found.length === 0) return out.note('No key. Add one with: imprint keypair add NAME FILE')
      out.table(found, [
        { title: 'NAME', value: ({ name }) => name },
        { title: 'FINGERPRINT', value: ({ fingerprint }) => fingerprint },
        { title: 'KIND', value: ({ publicKey }) => publicKey.split(' ', 1)[0] ?? null },
      ])
    })
    return 0
  },
})
