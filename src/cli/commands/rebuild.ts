import { command } from '../command.ts'
import { settled } from '../instance-command.ts'
import { safeText } from '../safe-text.ts'

export const rebuild = command({
  name: 'rebuild',
  summary: 'Install an instance anew, from the same image or another',
  description:
    'What is on its disk is gone; id, address, ports, key and flavor stay. imprint snapshot keeps the disk before that.',
  arguments: {
    instance: { help: 'name, id, or how an id begins' },
    image: { help: 'name or id (default: the one that it was made from)', optional: true },
  },
  options: { noWait: { type: 'flag', help: 'return as soon as it is begun' } },
  examples: [['imprint rebuild web debian-13', 'another system, in the same place']],
  exits: [3, 4, 5, 6, 7],
  async run({ instance: wanted, image: wantedImage, noWait }, { out, connect, signal }) {
    const { compute, images } = await connect()
    const { id, name, imageId } = await compute.find(wanted)
    const image = await images.find(wantedImage ?? imageId ?? '')
    await compute.act(id, { rebuild: { imageRef: image.id } })
    if (!noWait) await settled(compute, id, signal)
    out.result({ id, name, imageId: image.id }, () => {
      const from = safeText(image.name ?? image.id)
      out.line(`${safeText(name)} (${id}) ${noWait ? 'is being made' : 'was made'} anew from ${from}.`)
    })
    return 0
  },
})
