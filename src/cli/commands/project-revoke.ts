import { command } from '../command.ts'
import { find } from '../project-lookup.ts'
import { safeText } from '../safe-text.ts'

export const projectRevoke = command({
  name: 'project revoke',
  summary: 'Take a role in a project from a user (administrators)',
  arguments: { project: { help: 'name or id' }, user: { help: 'name or id' } },
  options: { role: { type: 'choice', choices: ['admin', 'member', 'reader'], help: 'which role (default: member)' } },
  examples: [['imprint project revoke web ada', 'ada no longer works there']],
  exits: [3, 4, 7],
  async run({ project: wantedProject, user: wantedUser, role = 'member' }, { out, connect }) {
    const { identity } = await connect()
    const project = await find(identity, 'projects', wantedProject)
    const user = await find(identity, 'users', wantedUser)
    await identity.grant('DELETE', project.id, user.id, (await find(identity, 'roles', role)).id)
    out.result({ project: project.id, user: user.id, role }, () => {
      out.line(`Took the role ${role} in ${safeText(project.name)} from ${safeText(user.name)}.`)
    })
    return 0
  },
})
