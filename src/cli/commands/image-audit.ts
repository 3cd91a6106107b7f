import { command } from '../command.ts'

export const imageAudit = command({
  name: 'image audit',
  summary: 'Say who did what to an image, and when',
  arguments: { image: { help: 'name or id; the id of a deleted image works too' } },
  options: {},
  examples: [['imprint image audit debian-12', 'its owner and administrators may ask']],
  exits: [3, 4, 5, 7],
  async run({ image: wanted }, { out, connect }) {
    const { images, imprint } = await connect()
    const isId = /^[0-9a-f-]{36}$/i.test(wanted)
    const id = isId ? wanted.toLowerCase() : (await images.find(wanted)).id
    const { raw, entries } = await imprint.audit(id)
    out.result(raw, () => {
      if (entries.length === 0) out.note('Nothing is recorded about it.')
      else {
        out.table(entries, [
          { title: 'WHEN', value: (entry) => entry.text('at') },
          { title: 'WHO', value: (entry) => entry.textOrNull('userName') ?? entry.textOrNull('userId') },
          {
            title: 'WHAT',
            value: (entry) => entry.text('action'),
            tone: (entry) => (entry.text('outcome') === 'success' ? 'plain' : 'bad'),
          },
          { title: 'OUTCOME', value: (entry) => entry.text('outcome') },
          { title: 'REQUEST', value: (entry) => entry.textOrNull('requestId') },
        ])
      }
    })
    return 0
  },
})
