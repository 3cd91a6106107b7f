import { command } from '../command.ts'
import { safeText } from '../safe-text.ts'

export const imageTag = command({
  name: 'image tag',
  summary: 'Put tags on an image',
  arguments: { image: { help: 'name or id' }, tags: { help: 'words, each up to 255 characters', many: true } },
  options: {},
  examples: [['imprint image tag debian-12 debian stable', 'two at once']],
  exits: [3, 4, 5, 6, 7],
  async run({ image: wanted, tags }, { out, connect }) {
    const { images } = await connect()
    const { id } = await images.find(wanted)
    for (const tag of tags) await images.tag('PUT', id, tag)
    const image = await images.show(id)
    out.result(image, () => out.line(`${safeText(image.name ?? id)}: ${image.tags.map(safeText).join(', ')}`))
    return 0
  },
})
