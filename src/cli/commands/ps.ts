import type { Instance } from '../client/compute-client.ts'
import type { ImageClient } from '../client/image-client.ts'
import { command } from '../command.ts'
import { instanceColumns } from '../instance-table.ts'

export const ps = command({
  name: 'ps',
  summary: 'List your instances',
  description: 'Those that are off are shown with --all. PORTS are those of the host that lead into the guest.',
  arguments: {},
  options: {
    all: { type: 'flag', help: 'those that are off too' },
    allProjects: { type: 'flag', help: 'of every project, for administrators' },
  },
  examples: [
    ['imprint ps', 'what runs'],
    ['imprint ps --all --json | jq -r ".[].id"', 'for scripts'],
  ],
  exits: [4, 7],
  async run({ all, allProjects }, { out, connect }) {
    const { compute, images } = await connect()
    const found = (await compute.list({ allProjects })).filter(({ status }) => all || status !== 'SHUTOFF')
    const names = out.json ? new Map<string, string>() : await imageNames(images, found)
    out.result(found, () => {
      if (found.length > 0) return out.table(found, instanceColumns(names))
      out.note(
        all ? 'No instance. Start one with: imprint run IMAGE' : 'No instance runs; imprint ps --all shows those that are off',
      )
    })
    return 0
  },
})

/** Asked once for each image; one that is gone, or hidden, has no name. */
async function imageNames(images: ImageClient, instances: readonly Instance[]): Promise<Map<string, string>> {
  const ids = new Set(instances.flatMap(({ imageId }) => (imageId === null ? [] : [imageId])))
  const found = await Promise.all([...ids].map((id) => images.show(id).catch(() => null)))
  return new Map(found.flatMap((image) => (image?.name ? [[image.id, image.name] as const] : [])))
}
