import type { InstancePorts } from '../ports.ts'
import { flavors } from '../store.ts'

/** The sizes that OpenStack's installations began with, ids included: [id, name, vCPUs, MiB of memory, GiB of disk]. */
const standard = [
  ['1', 'm1.tiny', 1, 512, 1],
  ['2', 'm1.small', 1, 2048, 20],
  ['3', 'm1.medium', 2, 4096, 40],
  ['4', 'm1.large', 4, 8192, 80],
  ['5', 'm1.xlarge', 8, 16_384, 160],
] as const

/** On the first start only: a flavor that an administrator deleted stays deleted. */
export async function loadStandardFlavors({ catalog, now }: Pick<InstancePorts, 'catalog' | 'now'>): Promise<void> {
  await catalog.write(async ({ documents }) => {
    if (await documents.get('compute-state', 'standard-flavors')) return
    for (const [id, name, vcpus, ramMiB, diskGiB] of standard) {
      if ((await flavors.get(documents, id)) || (await flavors.byName(documents, name))) continue
      const rest = { description: null, ephemeralGiB: 0, swapMiB: 0, isPublic: true, projects: [], extraSpecs: {} }
      await flavors.put(documents, { id, name, vcpus, ramMiB, diskGiB, ...rest, createdAt: now() })
    }
    await documents.put('compute-state', 'standard-flavors', { loadedAt: now() })
  })
}
