import { command } from '../command.ts'
import { find } from '../project-lookup.ts'
import { safeText } from '../safe-text.ts'
import { askSecret, readSecretFromStdin } from '../secret-prompt.ts'

export const userCreate = command({
  name: 'user create',
  summary: 'Make a user (administrators)',
  arguments: { name: { help: 'how the user logs in' } },
  options: {
    project: { type: 'text', value: 'NAME', help: 'project to work in; the user gets --role there' },
    role: { type: 'choice', choices: ['admin', 'member', 'reader'], help: 'role in that project (default: member)' },
    passwordStdin: { type: 'flag', help: 'read the password from the first line of stdin' },
  },
  examples: [['imprint user create ada --project web', 'asks for the password; ada logs in with: imprint login --user ada']],
  exits: [3, 4, 5, 7],
  async run({ name, project, role, passwordStdin }, { out, connect }) {
    const { identity } = await connect()
    const home = project === undefined ? undefined : await find(identity, 'projects', project)
    const password = passwordStdin ? await readSecretFromStdin() : await askSecret(`Password for ${safeText(name)}: `)
    const user = await identity.createUser(name, password, home?.id ?? null)
    if (home) await identity.grant('PUT', home.id, user.id, (await find(identity, 'roles', role ?? 'member')).id)
    out.result({ ...user, project: home?.name ?? null }, () => {
      const where = home ? `, ${role ?? 'member'} of ${safeText(home.name)}` : ''
      out.line(`Made ${safeText(user.name)} (${safeText(user.id)})${where}.`)
      if (!home) out.note(`Next: imprint project grant PROJECT ${safeText(user.name)}`)
    })
    return 0
  },
})
