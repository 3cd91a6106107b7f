import { ServiceError } from '../../base/errors.ts'
import { formatBytes } from '../../base/units.ts'
import { command } from '../command.ts'
import { settled } from '../instance-command.ts'
import { safeText } from '../safe-text.ts'

export const migrate = command({
  name: 'migrate',
  summary: 'Move an instance to another host while it runs',
  description: 'For administrators. Its guest goes on with what it does; for how long it stood still is told.',
  arguments: { instance: { help: 'name, id, or how an id begins' } },
  options: {
    to: { type: 'text', value: 'HOST', help: 'name of the host (default: the one with the most memory left)' },
    noWait: { type: 'flag', help: 'return as soon as it is begun' },
  },
  examples: [
    ['imprint migrate web', 'to any other host'],
    ['imprint migrate web --to left', 'to this one'],
  ],
  exits: [3, 4, 5, 6, 7],
  async run({ instance: wanted, to, noWait }, { out, connect, signal }) {
    const { compute, imprint } = await connect()
    const { id, name } = await compute.find(wanted)
    const before = await imprint.migration(id)
    await imprint.migrate(id, to ?? null)
    if (noWait) {
      out.result({ id, name }, () => out.line(`${safeText(name)} (${id}) is being moved.`))
      return 0
    }
    const now = await settled(compute, id, signal)
    const moved = await imprint.migration(id)
    if (!moved || moved.at === before?.at) {
      const why = now?.fault ?? `"openstack server event list ${id}" has the reason`
      throw new ServiceError('conflict', `${name} (${id}) stayed where it was: ${why}`)
    }
    out.result({ id, name, ...moved }, () => {
      const still = moved.downtimeMs === null ? 'nobody knows for how long' : `for ${moved.downtimeMs} ms`
      const bytes = moved.bytes === null ? '' : `, ${formatBytes(moved.bytes)} moved`
      out.line(
        `${safeText(name)} (${id}) went from ${safeText(moved.from)} to ${safeText(moved.to)}; it stood still ${still}${bytes}.`,
      )
    })
    return 0
  },
})
