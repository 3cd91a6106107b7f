import { command } from '../command.ts'
import { settled } from '../instance-command.ts'
import { safeText } from '../safe-text.ts'

export const restore = command({
  name: 'restore',
  summary: 'Put an instance back to a snapshot of its own',
  description: 'What was written since is gone; id, address and ports stay.',
  arguments: {
    instance: { help: 'name, id, or how an id begins' },
    snapshot: { help: 'name or id of the image' },
  },
  options: {
    memory: { type: 'flag', help: 'go on where the memory in the snapshot was' },
    noWait: { type: 'flag', help: 'return as soon as it is begun' },
  },
  examples: [['imprint restore web before-upgrade', 'as it was then']],
  exits: [3, 4, 5, 6, 7],
  async run({ instance: wanted, snapshot, memory, noWait }, { out, connect, signal }) {
    const { compute, images, imprint } = await connect()
    const { id, name } = await compute.find(wanted)
    const image = await images.find(snapshot)
    await imprint.restore(id, { image: image.id, memory })
    if (!noWait) await settled(compute, id, signal)
    out.result({ id, name, imageId: image.id }, () => {
      const to = safeText(image.name ?? image.id)
      out.line(`${safeText(name)} (${id}) ${noWait ? 'is being put' : 'was put'} back to ${to}.`)
    })
    return 0
  },
})
