import { bytesOf } from '../byte-count.ts'
import { command } from '../command.ts'
import { UsageError } from '../exit-codes.ts'
import { projectIdOf } from '../project-lookup.ts'
import { printQuotas } from './quota-show.ts'

export const quotaSet = command({
  name: 'quota set',
  summary: 'Set the limits of a project (administrators)',
  description: '-1 means no limit. A limit below what is used already only refuses more.',
  arguments: { project: { help: 'name or id' } },
  options: {
    images: { type: 'count', value: 'COUNT', least: -1, help: 'images that are private to it' },
    bytes: { type: 'text', value: 'BYTES', help: 'bytes of all its images, as 200G' },
    uploads: { type: 'count', value: 'COUNT', least: -1, help: 'images that receive bytes at once' },
    staged: { type: 'text', value: 'BYTES', help: 'staged bytes, as 50G' },
  },
  examples: [['imprint quota set web --images 200 --bytes 2T', 'room for more']],
  exits: [3, 4, 7],
  async run({ project, images, bytes, uploads, staged }, { out, connect }) {
    const given: Record<string, number | undefined> = {
      images,
      bytes: bytes === undefined ? undefined : bytesOf('--bytes', bytes, { unlimited: true }),
      uploads,
      staged: staged === undefined ? undefined : bytesOf('--staged', staged, { unlimited: true }),
    }
    const limits = Object.fromEntries(Object.entries(given).filter((pair): pair is [string, number] => pair[1] !== undefined))
    if (Object.keys(limits).length === 0) throw new UsageError('nothing to set; see: imprint quota set --help')
    const { imprint, identity } = await connect()
    const id = await projectIdOf(identity, project)
    const quotas = await imprint.setQuota(id, limits)
    out.result({ project: id, quotas }, () => printQuotas(out, quotas))
    return 0
  },
})
