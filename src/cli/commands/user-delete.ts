import { command } from '../command.ts'
import { find } from '../project-lookup.ts'
import { safeText } from '../safe-text.ts'

export const userDelete = command({
  name: 'user delete',
  summary: 'Delete a user (administrators); images belong to projects and stay',
  arguments: { user: { help: 'name or id' } },
  options: {},
  examples: [['imprint user delete ada', 'tokens and credentials of the user end at once']],
  exits: [3, 4, 7],
  async run({ user }, { out, connect }) {
    const { identity } = await connect()
    const { id, name } = await find(identity, 'users', user)
    await identity.remove('users', id)
    out.result({ id, name }, () => out.line(`Deleted ${safeText(name)} (${safeText(id)}).`))
    return 0
  },
})
