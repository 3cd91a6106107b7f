import { command } from '../command.ts'
import { safeText } from '../safe-text.ts'

export const imageUntag = command({
  name: 'image untag',
  summary: 'Take tags off an image',
  arguments: { image: { help: 'name or id' }, tags: { help: 'tags that it has', many: true } },
  options: {},
  examples: [['imprint image untag debian-12 stable', 'no longer']],
  exits: [3, 4, 5, 7],
  async run({ image: wanted, tags }, { out, connect }) {
    const { images } = await connect()
    const { id } = await images.find(wanted)
    for (const tag of tags) await images.tag('DELETE', id, tag)
    const image = await images.show(id)
    out.result(image, () => out.line(`${safeText(image.name ?? id)}: ${image.tags.map(safeText).join(', ') || 'no tags'}`))
    return 0
  },
})
