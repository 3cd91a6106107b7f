import type { Instance } from '../client/compute-client.ts'
import { command } from '../command.ts'
import { ageOf, portsOf, stateOf } from '../instance-table.ts'

export const show = command({
  name: 'show',
  summary: 'Show one instance',
  arguments: { instance: { help: 'name, id, or how an id begins' } },
  options: {},
  examples: [['imprint show web', 'by name']],
  exits: [3, 4, 5, 7],
  async run({ instance: wanted }, { out, connect }) {
    const { compute, images } = await connect()
    const instance = await compute.find(wanted)
    const image = instance.imageId === null ? null : await images.show(instance.imageId).catch(() => null)
    out.result(instance, () => out.record(rowsOf(instance, image?.name ?? null)))
    return 0
  },
})

function rowsOf(instance: Instance, imageName: string | null): (readonly [string, string | number | null])[] {
  const { flavor, imageId } = instance
  return [
    ['id', instance.id],
    ['name', instance.name],
    ['state', stateOf(instance) + (instance.locked ? ', locked' : '')],
    ...(instance.fault === null ? [] : ([['fault', instance.fault]] as const)),
    ['image', imageName === null ? imageId : `${imageName} (${imageId})`],
    ['flavor', `${flavor.name}: ${flavor.vcpus} processors, ${flavor.ramMiB} MiB, ${flavor.diskGiB} GiB disk`],
    ['key', instance.keyName],
    ['ports', portsOf(instance) || null],
    ['created', `${instance.createdAt} (${ageOf(instance.createdAt)} ago)`],
    ['updated', instance.updatedAt],
    ['project', instance.projectId],
    ...Object.entries(instance.metadata).map(([name, value]) => [`property ${name}`, value] as const),
  ]
}
