import { command } from '../command.ts'
import { find } from '../project-lookup.ts'
import { safeText } from '../safe-text.ts'

export const projectGrant = command({
  name: 'project grant',
  summary: 'Give a user a role in a project (administrators)',
  arguments: { project: { help: 'name or id' }, user: { help: 'name or id' } },
  options: { role: { type: 'choice', choices: ['admin', 'member', 'reader'], help: 'which role (default: member)' } },
  examples: [['imprint project grant web ada', 'ada may now put images in, share and delete them']],
  exits: [3, 4, 7],
  async run({ project: wantedProject, user: wantedUser, role = 'member' }, { out, connect }) {
    const { identity } = await connect()
    const project = await find(identity, 'projects', wantedProject)
    const user = await find(identity, 'users', wantedUser)
    await identity.grant('PUT', project.id, user.id, (await find(identity, 'roles', role)).id)
    out.result({ project: project.id, user: user.id, role }, () => {
      out.line(`Gave ${safeText(user.name)} the role ${role} in ${safeText(project.name)}.`)
    })
    return 0
  },
})
