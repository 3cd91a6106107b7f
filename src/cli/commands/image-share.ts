import { isServiceError } from '../../base/errors.ts'
import { command } from '../command.ts'
import { projectIdOf } from '../project-lookup.ts'
import { safeText } from '../safe-text.ts'

export const imageShare = command({
  name: 'image share',
  summary: 'Share an image with other projects',
  description:
    'A project sees the image by its id at once, and in its lists when it has accepted. An image that is private becomes shared.\nA name of a project can be looked up by administrators; others give the id, which imprint whoami shows its members.',
  arguments: {
    image: { help: 'name or id' },
    projects: { help: 'ids (or, for an administrator, names) of projects', many: true },
  },
  options: {},
  examples: [['imprint image share debian-12 9f2c1e…', 'then, in that project: imprint image accept debian-12']],
  exits: [3, 4, 5, 6, 7],
  async run({ image: wanted, projects }, { out, connect }) {
    const { images, identity } = await connect()
    const image = await images.find(wanted)
    const ids = await Promise.all(projects.map((project) => projectIdOf(identity, project)))
    if (image.visibility === 'private') await images.update(image.id, [{ op: 'replace', path: '/visibility', value: 'shared' }])
    const members: { readonly project: string; readonly status: string }[] = []
    for (const id of ids) {
      const already = (error: unknown) => {
        if (!isServiceError(error, 'conflict')) throw error
        return null
      }
      const member = await images.addMember(image.id, id).catch(already)
      members.push({ project: id, status: member?.status ?? 'already shared' })
    }
    out.result({ id: image.id, members }, () => {
      for (const { project, status } of members)
        out.line(`Shared ${safeText(image.name ?? image.id)} with ${safeText(project)}: ${safeText(status)}.`)
      out.note(`There, someone accepts it with: imprint image accept ${image.id}`)
    })
    return 0
  },
})
