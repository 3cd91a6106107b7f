import { Type } from '@sinclair/typebox'
import { ServiceError } from '../../../base/errors.ts'
import { MiB } from '../../../base/units.ts'
import type { AuthenticatedCaller } from '../../../identity/identity.ts'
import { createLimits, createRegisteredLimits, listLimits, listRegisteredLimits, updateLimit } from '../../../identity/limits.ts'
import type { QuotaName } from '../../../images/ports.ts'
import { type Route, route } from './route.ts'
import { projectId, Quotas, SetQuotas } from './schemas.ts'
import type { ImprintServices } from './services.ts'
import { administratorsOnly } from './store-routes.ts'

type Name = 'images' | 'bytes' | 'uploads' | 'staged'
/** Our words → the resources of the unified limits, which the identity API shows too. */
const resourceOf: Readonly<Record<Name, QuotaName>> = {
  images: 'image_count_total',
  bytes: 'image_size_total',
  uploads: 'image_count_uploading',
  staged: 'image_stage_total',
}
const names = Object.keys(resourceOf) as Name[]
/** OpenStack counts bytes in MiB there. */
const unitOf = (name: Name): number => (name === 'bytes' || name === 'staged' ? MiB : 1)
const toLimit = (name: Name, value: number): number => (value < 0 ? -1 : Math.ceil(value / unitOf(name)))
const fromLimit = (name: Name, limit: number): number => (limit < 0 ? -1 : limit * unitOf(name))

const params = Type.Object({ id: projectId })

export const quotaRoutes = (services: ImprintServices): readonly Route[] => [
  route({
    method: 'GET',
    path: '/projects/:id/quota',
    summary: 'What a project uses of what it may use',
    who: 'its members, administrators',
    params,
    reply: { status: 200, body: Quotas, description: 'limits and usage; bytes in bytes' },
    errors: ['unauthenticated', 'not-found'],
    async handle({ caller, params: { id } }) {
      if (!caller.isAdmin && caller.projectId !== id) {
        throw new ServiceError(
          'not-found',
          `there is no project "${id}" whose quota you may see; your own is ${caller.projectId ?? 'none'}`,
        )
      }
      return quotasOf(services, id)
    },
  }),
  route({
    method: 'PUT',
    path: '/projects/:id/quota',
    summary: 'Set limits of a project',
    description: 'Bytes are rounded up to whole MiB. The same limits are to be seen at /identity/v3/limits.',
    who: 'administrators',
    params,
    body: SetQuotas,
    reply: { status: 200, body: Quotas, description: 'as they are now' },
    errors: ['unauthenticated', 'denied', 'invalid-request'],
    async handle({ caller, params: { id }, body }) {
      administratorsOnly(caller)
      for (const name of names) {
        const limit = body.limits[name]
        if (limit !== undefined) await setLimit(services, caller, id, name, toLimit(name, limit))
      }
      return quotasOf(services, id)
    },
  }),
]

async function quotasOf({ images }: ImprintServices, project: string): Promise<object> {
  const { catalog, limits, settings } = images
  const use = await catalog.images.usage(project)
  const usage: Record<Name, number> = {
    images: use.imageCount,
    bytes: use.totalBytes,
    uploads: use.uploadingCount,
    staged: use.stagedBytes,
  }
  const quotas = await Promise.all(
    names.map(async (name) => {
      const limit = (await limits.of(project, resourceOf[name])) ?? settings.defaultLimits[resourceOf[name]]
      return { name, limit: fromLimit(name, limit), usage: usage[name] }
    }),
  )
  return { quotas }
}

/** As the identity API does it: a limit of a project stands beside one that is registered for everybody. */
async function setLimit(
  { identity, images }: ImprintServices,
  caller: AuthenticatedCaller,
  project: string,
  name: Name,
  resourceLimit: number,
): Promise<void> {
  const { ports } = identity
  const resourceName = resourceOf[name]
  const serviceId = ports.services.find(({ type }) => type === 'image')?.id
  if (!serviceId) throw new ServiceError('unsupported', 'the catalog of this service lists no image service to limit')
  const isSame = (one: { readonly serviceId: string; readonly resourceName: string }) =>
    one.serviceId === serviceId && one.resourceName === resourceName
  const registered = (await listRegisteredLimits(ports, caller)).items.find(isSame)
  const regionId = registered?.regionId ?? null
  if (!registered) {
    const defaultLimit = images.settings.defaultLimits[resourceName]
    await createRegisteredLimits(ports, caller, [{ serviceId, regionId, resourceName, defaultLimit, description: null }])
  }
  const own = (await listLimits(ports, caller, { projectId: project })).items.find(
    (one) => isSame(one) && one.projectId === project,
  )
  if (own) await updateLimit(ports, caller, own.id, { resourceLimit })
  else {
    await createLimits(ports, caller, [
      { serviceId, regionId, resourceName, resourceLimit, description: null, projectId: project },
    ])
  }
}
