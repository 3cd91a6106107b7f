import { rememberResourceType } from '../associations.ts'
import { keyOf, type MetadefPorts, NAMESPACE_KIND, type Namespace } from '../metadef.ts'
import { namespaceFrom } from '../namespaces.ts'
import type { StandardNamespace } from './define.ts'
import { bareMetal, bareMetalImage, limits, software, volumes } from './flavors-and-servers.ts'
import { agents, licence, maintenance, operatingSystem, resources, signature } from './guest.ts'
import {
  architecture,
  clockAndChance,
  disk,
  display,
  firmware,
  memory,
  network,
  processor,
  traits,
  upkeep,
  vmware,
} from './hardware.ts'

/** The definitions that every service begins with. */
export const standardNamespaces: readonly StandardNamespace[] = [
  operatingSystem,
  agents,
  maintenance,
  licence,
  resources,
  signature,
  architecture,
  disk,
  network,
  display,
  firmware,
  processor,
  memory,
  upkeep,
  clockAndChance,
  traits,
  vmware,
  bareMetalImage,
  volumes,
  software,
  limits,
  bareMetal,
]

/** Grows with each change to the definitions above. */
export const STANDARD_EDITION = 1

const LOADED_KIND = 'metadef-standard'
const LOADED_KEY = 'loaded'
const OWNER = 'imprint'

/**
 * Puts the standard set into the catalog; run at each start, in one write. A namespace is put there once: one that an
 * administrator deleted stays away, one that somebody changed stays as it is, and the others follow the newer edition.
 *
 * @returns how many namespaces were written
 */
export async function loadStandardMetadefs({ catalog, now = Date.now }: MetadefPorts): Promise<number> {
  return catalog.write(async (tx) => {
    const loaded = (await tx.documents.get<Record<string, number>>(LOADED_KIND, LOADED_KEY))?.body ?? {}
    const wanted = standardNamespaces.filter(({ namespace }) => (loaded[namespace] ?? 0) < STANDARD_EDITION)
    let written = 0
    for (const standard of wanted) {
      const key = keyOf(standard.namespace)
      const there = await tx.documents.get<Namespace>(NAMESPACE_KIND, key)
      const mayWrite = there ? there.body.standardEdition !== null : loaded[standard.namespace] === undefined
      if (!mayWrite) continue
      const at = now()
      const namespace = namespaceFrom({ ...standard, visibility: 'public', protected: true, owner: OWNER }, OWNER, at)
      for (const { name } of namespace.associations) await rememberResourceType(tx, name, at)
      await tx.documents.put<Namespace>(NAMESPACE_KIND, key, { ...namespace, standardEdition: STANDARD_EDITION })
      written += 1
    }
    if (wanted.length > 0) {
      const all = Object.fromEntries(standardNamespaces.map(({ namespace }) => [namespace, STANDARD_EDITION]))
      await tx.documents.put(LOADED_KIND, LOADED_KEY, { ...loaded, ...all })
    }
    return written
  })
}
