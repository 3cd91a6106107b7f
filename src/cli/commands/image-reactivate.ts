import { command } from '../command.ts'
import { safeText } from '../safe-text.ts'

export const imageReactivate = command({
  name: 'image reactivate',
  summary: 'Let an image be downloaded again',
  arguments: { image: { help: 'name or id' } },
  options: {},
  examples: [['imprint image reactivate debian-12', 'the complaint is settled']],
  exits: [3, 4, 5, 7],
  async run({ image: wanted }, { out, connect }) {
    const { images } = await connect()
    const { id } = await images.find(wanted)
    await images.act(id, 'reactivate')
    const image = await images.show(id)
    out.result(image, () => out.line(`${safeText(image.name ?? id)}: ${safeText(image.status)}`))
    return 0
  },
})
