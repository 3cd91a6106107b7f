import { formatBytes } from '../../base/units.ts'
import { Shape } from '../client/shape.ts'
import { command } from '../command.ts'
import { formatDuration } from '../progress.ts'

export const status = command({
  name: 'status',
  summary: 'Say whether the service is well',
  arguments: {},
  options: {},
  examples: [['imprint status', 'version, uptime and, for an administrator, the store']],
  exits: [4, 7],
  async run(_, { out, connect }) {
    const { url, imprint } = await connect()
    const raw = await imprint.status()
    const shape = new Shape(raw, 'status')
    out.result(raw, () => {
      const store = shape.has('store') ? shape.shape('store') : undefined
      out.record([
        ['service', url],
        ['version', shape.text('version')],
        ['up for', formatDuration(shape.number('uptimeSeconds') * 1000)],
        ...(store
          ? ([
              ['chunks', `${store.number('chunks')} in ${store.number('packs')} packs`],
              ['stored', formatBytes(store.number('storedBytes'))],
              ['job', shape.textOrNull('job')],
            ] as const)
          : []),
      ])
    })
    return 0
  },
})
