import { ServiceError } from '../../base/errors.ts'
import { formatBytes } from '../../base/units.ts'
import type { Usage } from '../client/imprint-client.ts'
import { command } from '../command.ts'
import type { Output } from '../output.ts'
import { projectIdOf } from '../project-lookup.ts'

export const quotaShow = command({
  name: 'quota show',
  summary: 'Show what a project uses of what it may use',
  arguments: { project: { help: 'id (or, for an administrator, name); default: your own', optional: true } },
  options: {},
  examples: [['imprint quota show', 'of the project that you work in']],
  exits: [3, 4, 7],
  async run({ project }, { out, connect }) {
    const { imprint, identity, projectId } = await connect()
    const id = project === undefined ? projectId : await projectIdOf(identity, project)
    if (id === null) throw new ServiceError('invalid-request', 'your login has no project; name one: imprint quota show PROJECT')
    const quotas = await imprint.quota(id)
    out.result({ project: id, quotas }, () => printQuotas(out, quotas))
    return 0
  },
})

export function printQuotas(out: Output, quotas: readonly Usage[]): void {
  const shown = (name: string, value: number): string =>
    value < 0 ? 'no limit' : /bytes|staged/i.test(name) ? formatBytes(value) : String(value)
  out.table(quotas, [
    { title: 'WHAT', value: ({ name }) => name },
    { title: 'USED', value: ({ name, usage }) => shown(name, usage), align: 'right' },
    { title: 'LIMIT', value: ({ name, limit }) => shown(name, limit), align: 'right' },
  ])
}
