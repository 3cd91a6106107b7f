import { Type } from '@sinclair/typebox'
import type { Caller } from '../../../base/caller.ts'
import { ServiceError } from '../../../base/errors.ts'
import { showVolume } from '../../../volumes/find-volume.ts'
import { metadataItem } from '../../../volumes/metadata.ts'
import type { VolumePorts } from '../../../volumes/ports.ts'
import type { Metadata } from '../../../volumes/records.ts'
import { showSnapshot } from '../../../volumes/snapshots/find-snapshot.ts'
import { mergeSnapshotMetadata, removeSnapshotMetadata, updateSnapshot } from '../../../volumes/snapshots/update-snapshot.ts'
import { mergeVolumeMetadata, removeVolumeMetadata, updateVolume } from '../../../volumes/update-volume.ts'
import { bodyOf } from '../json-body.ts'
import { type Call, ok, part, type Route } from './route.ts'
import { metadata, strict } from './schemas.ts'

const allBody = bodyOf(Type.Object({ metadata }, strict))
const itemBody = bodyOf(Type.Object({ meta: metadata }, strict))

interface Owner {
  readonly metadata: Metadata
}
type Of<Args extends readonly unknown[]> = (ports: VolumePorts, caller: Caller, id: string, ...args: Args) => Promise<Owner>

/** Volumes and snapshots have it alike. */
const routesOf = (
  path: string,
  show: Of<[]>,
  merge: Of<[Metadata]>,
  replace: Of<[{ metadata: Metadata }]>,
  remove: Of<[string]>,
): Route[] => {
  const ofCall = <Args extends readonly unknown[]>({ ports, caller, ...call }: Call, work: Of<Args>, ...args: Args) =>
    work(ports, caller, part(call, 'id'), ...args)
  return [
    { method: 'GET', path, handle: async (call) => ok({ metadata: (await ofCall(call, show)).metadata }) },
    {
      method: 'POST',
      path,
      handle: async (call) => ok({ metadata: (await ofCall(call, merge, allBody(call.body).metadata)).metadata }),
    },
    {
      method: 'PUT',
      path,
      handle: async (call) => ok({ metadata: (await ofCall(call, replace, { metadata: allBody(call.body).metadata })).metadata }),
    },
    {
      method: 'GET',
      path: `${path}/:key`,
      async handle(call) {
        const key = part(call, 'key')
        return ok({ meta: { [key]: metadataItem((await ofCall(call, show)).metadata, key) } })
      },
    },
    {
      method: 'PUT',
      path: `${path}/:key`,
      async handle(call) {
        const { meta } = itemBody(call.body)
        const key = part(call, 'key')
        if (Object.keys(meta).length !== 1) throw new ServiceError('invalid-request', 'Request body contains too many items')
        if (!Object.hasOwn(meta, key)) throw new ServiceError('invalid-request', 'Request body and URI mismatch')
        await ofCall(call, merge, meta)
        return ok({ meta })
      },
    },
    {
      method: 'DELETE',
      path: `${path}/:key`,
      async handle(call) {
        await ofCall(call, remove, part(call, 'key'))
        return { status: 200 }
      },
    },
  ]
}

export const metadataRoutes: readonly Route[] = [
  ...routesOf('/volumes/:id/metadata', showVolume, mergeVolumeMetadata, updateVolume, removeVolumeMetadata),
  ...routesOf('/snapshots/:id/metadata', showSnapshot, mergeSnapshotMetadata, updateSnapshot, removeSnapshotMetadata),
]
