import { ServiceError } from '../base/errors.ts'
import { type Command, command } from './command.ts'
import { safeText } from './safe-text.ts'

/** `image accept` and `image reject`: the answer of the project that an image was shared with. */
export const membershipCommand = (verb: 'accept' | 'reject', summary: string, example: string): Command =>
  command({
    name: `image ${verb}`,
    summary,
    arguments: { image: { help: 'id, or name, of an image shared with your project' } },
    options: {},
    examples: [[`imprint image ${verb} debian-12`, example]],
    exits: [3, 4, 5, 7],
    async run({ image: wanted }, { out, connect }) {
      const { images, projectId } = await connect()
      if (projectId === null) throw new ServiceError('denied', 'your login has no project to answer for; log in with --project')
      const image = await images.find(wanted, [
        ['visibility', 'shared'],
        ['member_status', 'all'],
      ])
      const member = await images.answerMembership(image.id, projectId, verb === 'accept' ? 'accepted' : 'rejected')
      out.result({ id: image.id, ...member }, () =>
        out.line(`${safeText(image.name ?? image.id)} (${image.id}): ${safeText(member.status)}.`),
      )
      return 0
    },
  })
