import { command } from '../command.ts'
import { UsageError } from '../exit-codes.ts'
import { settled } from '../instance-command.ts'
import { safeText } from '../safe-text.ts'
import { nameAt, untilImage } from '../until-image.ts'

const KEPT = 7

export const backup = command({
  name: 'backup',
  summary: 'Back an instance up, now or every so many hours, and keep the newest of its backups',
  description: 'Backups are images. Of each type so many are kept; the oldest goes when there is a newer one.',
  arguments: { instance: { help: 'name, id, or how an id begins' } },
  options: {
    type: { type: 'text', value: 'WORD', help: 'what counts together: daily, weekly … (default: manual)' },
    keep: { type: 'count', value: 'COUNT', least: 1, most: 1000, help: 'so many of the type (default: 7)' },
    every: { type: 'count', value: 'HOURS', least: 1, most: 8760, help: 'from now on, every so many hours' },
    end: { type: 'flag', help: 'no more by themselves; those that there are stay' },
    noWait: { type: 'flag', help: 'return as soon as it is begun' },
  },
  examples: [
    ['imprint backup web', 'now'],
    ['imprint backup web --type daily --every 24 --keep 14', 'every day, for a fortnight'],
    ['imprint backup web --end', 'no more'],
  ],
  exits: [3, 4, 5, 6, 7],
  async run({ instance: wanted, type = 'manual', keep = KEPT, every, end, noWait }, { out, connect, signal }) {
    if (end && every !== undefined) throw new UsageError('--end and --every contradict each other')
    const { compute, images, imprint } = await connect()
    const { id, name } = await compute.find(wanted)
    if (end || every !== undefined) {
      const plan = every === undefined ? null : { everyHours: every, backupType: type, rotation: keep }
      await imprint.scheduleBackups(id, plan)
      const says = plan === null ? 'is backed up no more' : `is backed up every ${every} h, from now on; ${keep} are kept`
      out.result({ id, name, plan }, () => out.line(`${safeText(name)} ${says}.`))
      return 0
    }
    const imageId = await compute.backup(id, { name: nameAt(name), type, rotation: keep })
    const image = noWait ? await images.show(imageId) : await untilImage(images, imageId, signal)
    if (!noWait) await settled(compute, id, signal)
    out.result(image, () => out.line(`${safeText(image.name ?? imageId)} (${imageId}) ${noWait ? 'is being made' : 'was made'}.`))
    return 0
  },
})
