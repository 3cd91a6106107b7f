import { command } from '../command.ts'
import { safeText } from '../safe-text.ts'

export const imageDeactivate = command({
  name: 'image deactivate',
  summary: 'Keep everyone but administrators from downloading an image',
  arguments: { image: { help: 'name or id' } },
  options: {},
  examples: [['imprint image deactivate debian-12', 'while a complaint about it is looked into']],
  exits: [3, 4, 5, 7],
  async run({ image: wanted }, { out, connect }) {
    const { images } = await connect()
    const { id } = await images.find(wanted)
    await images.act(id, 'deactivate')
    const image = await images.show(id)
    out.result(image, () => out.line(`${safeText(image.name ?? id)}: ${safeText(image.status)}`))
    return 0
  },
})
