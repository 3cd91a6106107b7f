import { command } from '../command.ts'
import { safeText } from '../safe-text.ts'

export const projectCreate = command({
  name: 'project create',
  summary: 'Make a project, which owns images and has quotas (administrators)',
  arguments: { name: { help: 'its name' } },
  options: { description: { type: 'text', value: 'TEXT', help: 'what it is for' } },
  examples: [['imprint project create web --description "the web team"', 'then: imprint user create ada --project web']],
  exits: [4, 5, 7],
  async run({ name, description }, { out, connect }) {
    const { identity } = await connect()
    const project = await identity.createProject(name, description ?? '')
    out.result(project, () => out.line(`Made ${safeText(project.name)} (${safeText(project.id)}).`))
    return 0
  },
})
