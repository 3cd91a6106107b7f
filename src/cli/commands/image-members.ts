import { command } from '../command.ts'

export const imageMembers = command({
  name: 'image members',
  summary: 'List the projects that an image is shared with, and their answers',
  arguments: { image: { help: 'name or id' } },
  options: {},
  examples: [['imprint image members debian-12', 'who has accepted?']],
  exits: [3, 4, 5, 7],
  async run({ image: wanted }, { out, connect }) {
    const { images } = await connect()
    const members = await images.members((await images.find(wanted)).id)
    out.result(members, () => {
      if (members.length === 0) out.note('Shared with nobody. imprint image share changes that.')
      else {
        out.table(members, [
          { title: 'PROJECT', value: ({ memberId }) => memberId },
          { title: 'STATUS', value: ({ status }) => status, tone: ({ status }) => (status === 'accepted' ? 'good' : 'plain') },
          { title: 'UPDATED', value: ({ updatedAt }) => updatedAt },
        ])
      }
    })
    return 0
  },
})
