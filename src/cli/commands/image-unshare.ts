import { command } from '../command.ts'
import { projectIdOf } from '../project-lookup.ts'
import { safeText } from '../safe-text.ts'

export const imageUnshare = command({
  name: 'image unshare',
  summary: 'Take a shared image back from projects',
  arguments: {
    image: { help: 'name or id' },
    projects: { help: 'ids (or, for an administrator, names) of projects', many: true },
  },
  options: {},
  examples: [['imprint image unshare debian-12 9f2c1e…', 'that project no longer sees it']],
  exits: [3, 4, 5, 7],
  async run({ image: wanted, projects }, { out, connect }) {
    const { images, identity } = await connect()
    const image = await images.find(wanted)
    const ids = await Promise.all(projects.map((project) => projectIdOf(identity, project)))
    for (const id of ids) await images.removeMember(image.id, id)
    out.result({ id: image.id, removed: ids }, () =>
      out.line(`Took ${safeText(image.name ?? image.id)} back from ${ids.map(safeText).join(', ')}.`),
    )
    return 0
  },
})
