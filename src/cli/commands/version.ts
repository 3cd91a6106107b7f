import { readFileSync } from 'node:fs'
import { command } from '../command.ts'

/** From package.json, the only place where it stands. */
export const ownVersion = (): string =>
  (JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as { version: string }).version

export const version = command({
  name: 'version',
  summary: 'Print the version of this program',
  arguments: {},
  options: {},
  examples: [['imprint version', 'of this program; imprint status shows that of the service']],
  exits: [],
  async run(_, { out }) {
    const found = { version: ownVersion(), node: process.version }
    out.result(found, () => out.line(`imprint ${found.version} (Node ${found.node})`))
    return 0
  },
})
