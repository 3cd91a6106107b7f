import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { authorizeService } from '../policy.ts'
import type { InstancePorts } from '../ports.ts'
import type { FlavorRecord } from '../records.ts'
import { changeFlavor, findFlavor } from './flavors.ts'

type Ports = Pick<InstancePorts, 'catalog'>

const MAX_PROJECTS = 1000 // all of them stand in the flavor's record

/** The projects that may use a private flavor. @throws ServiceError `denied`; `not-found`, also for a public one */
export async function listFlavorAccess({ catalog }: Ports, caller: Caller, id: string): Promise<readonly string[]> {
  authorizeService(caller, 'read-flavor-access')
  const flavor = await findFlavor(catalog.documents, caller, id)
  if (flavor.isPublic) throw new ServiceError('not-found', 'Access list not available for public flavors.')
  return flavor.projects
}

/** @throws ServiceError `denied`, `not-found`; `conflict` for a public flavor, or a project that has access */
export function addFlavorAccess(ports: Ports, caller: Caller, id: string, projectId: string): Promise<FlavorRecord> {
  return changeFlavor(ports, caller, id, (flavor) => {
    if (flavor.isPublic) {
      throw new ServiceError('conflict', `flavor ${id} is public: everybody may use it, and access is given to private ones only`)
    }
    if (flavor.projects.includes(projectId)) {
      throw new ServiceError('conflict', `Flavor access already exists for flavor ${id} and project ${projectId} combination.`)
    }
    if (flavor.projects.length >= MAX_PROJECTS) {
      throw new ServiceError('conflict', `${MAX_PROJECTS} projects have access to flavor ${id}: make another, or a public one`)
    }
    return { ...flavor, projects: [...flavor.projects, projectId].sort() }
  })
}

/** @throws ServiceError `denied`; `not-found` where the project has no access */
export function removeFlavorAccess(ports: Ports, caller: Caller, id: string, projectId: string): Promise<FlavorRecord> {
  return changeFlavor(ports, caller, id, (flavor) => {
    if (!flavor.projects.includes(projectId)) {
      throw new ServiceError('not-found', `Flavor access not found for ${id} / ${projectId} combination.`)
    }
    return { ...flavor, projects: flavor.projects.filter((project) => project !== projectId) }
  })
}
