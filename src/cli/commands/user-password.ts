import { command } from '../command.ts'
import { find } from '../project-lookup.ts'
import { safeText } from '../safe-text.ts'
import { askSecret, readSecretFromStdin } from '../secret-prompt.ts'

export const userPassword = command({
  name: 'user password',
  summary: 'Give a user a new password (administrators)',
  arguments: { user: { help: 'name or id' } },
  options: { passwordStdin: { type: 'flag', help: 'read the password from the first line of stdin' } },
  examples: [['imprint user password ada', 'asks for it']],
  exits: [3, 4, 7],
  async run({ user, passwordStdin }, { out, connect }) {
    const { identity } = await connect()
    const { id, name } = await find(identity, 'users', user)
    await identity.setPassword(
      id,
      passwordStdin ? await readSecretFromStdin() : await askSecret(`New password for ${safeText(name)}: `),
    )
    out.result({ id, name }, () => out.line(`${safeText(name)} has a new password.`))
    return 0
  },
})
