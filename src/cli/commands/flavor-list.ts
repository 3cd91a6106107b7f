import { command } from '../command.ts'

export const flavorList = command({
  name: 'flavor list',
  summary: 'List the sizes that instances may have',
  arguments: {},
  options: {},
  examples: [['imprint flavor list', 'the smallest first']],
  exits: [4, 7],
  async run(_, { out, connect }) {
    const { compute } = await connect()
    const found = (await compute.flavors()).toSorted((a, b) => a.ramMiB - b.ramMiB || a.diskGiB - b.diskGiB)
    out.result(found, () =>
      out.table(found, [
        { title: 'NAME', value: ({ name }) => name },
        { title: 'PROCESSORS', value: ({ vcpus }) => vcpus, align: 'right' },
        { title: 'MEMORY', value: ({ ramMiB }) => `${ramMiB} MiB`, align: 'right' },
        { title: 'DISK', value: ({ diskGiB }) => (diskGiB === 0 ? 'as the image' : `${diskGiB} GiB`), align: 'right' },
        { title: 'ID', value: ({ id }) => id },
      ]),
    )
    return 0
  },
})
