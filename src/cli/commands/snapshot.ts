import { formatBytes } from '../../base/units.ts'
import { command } from '../command.ts'
import { settled } from '../instance-command.ts'
import { formatDuration } from '../progress.ts'
import { safeText } from '../safe-text.ts'
import { nameAt, untilImage } from '../until-image.ts'

export const snapshot = command({
  name: 'snapshot',
  summary: 'Make an image of an instance as it is at this moment, while it runs on',
  description: [
    'With --memory what runs in it is kept too: imprint restore, and imprint run --machine, let it go on from there. With --machine the',
    'image tells what the machine was, so that imprint run --machine makes the same again.',
  ].join('\n'),
  arguments: { instance: { help: 'name, id, or how an id begins' } },
  options: {
    name: { type: 'text', value: 'NAME', help: 'name of the image (default: that of the instance, and the time)' },
    memory: { type: 'flag', help: 'what runs in it too' },
    machine: { type: 'flag', help: 'what the machine is too: flavor, key, user data …' },
    noWait: { type: 'flag', help: 'return as soon as it is begun' },
  },
  examples: [
    ['imprint snapshot web --name before-upgrade', 'then: imprint restore web before-upgrade'],
    ['imprint snapshot web --memory', 'with what runs'],
  ],
  exits: [3, 4, 5, 6, 7],
  async run({ instance: wanted, name, memory, machine, noWait }, { out, connect, signal }) {
    const { compute, images, imprint } = await connect()
    const instance = await compute.find(wanted)
    const started = performance.now()
    const id = await imprint.snapshot(instance.id, { name: name ?? nameAt(instance.name), memory, machine })
    const image = noWait ? await images.show(id) : await untilImage(images, id, signal)
    if (!noWait) await settled(compute, instance.id, signal)
    out.result(image, () => {
      const took = noWait ? 'is being made' : `was made in ${formatDuration(performance.now() - started)}`
      const size = image.sizeBytes === null ? '' : `: ${formatBytes(image.sizeBytes)}`
      out.line(`${safeText(image.name ?? id)} (${id}) ${took}${size}.`)
    })
    return 0
  },
})
