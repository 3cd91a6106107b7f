import { Type } from '@sinclair/typebox'
import { createVolume } from '../../../volumes/create-volume.ts'
import { deleteVolume } from '../../../volumes/delete-volume.ts'
import { showVolume } from '../../../volumes/find-volume.ts'
import { type ListQuery, listVolumes } from '../../../volumes/list.ts'
import type { VolumeRecord } from '../../../volumes/records.ts'
import { updateVolume, type VolumeUpdate } from '../../../volumes/update-volume.ts'
import { bodyOf } from '../json-body.ts'
import { isYes, nextLink } from '../paging.ts'
import { volumeQueryFrom } from './list-query.ts'
import { newVolumeFrom, textFrom } from './new-volume.ts'
import { accepted, type Call, ok, part, type Route } from './route.ts'
import { description, name, optionalMetadata } from './schemas.ts'
import { volumeJson, volumeSummary } from './volume-json.ts'

const updateBody = bodyOf(
  Type.Object({
    volume: Type.Object({
      name: Type.Optional(name),
      display_name: Type.Optional(name),
      description: Type.Optional(description),
      display_description: Type.Optional(description),
      metadata: optionalMetadata,
    }),
  }),
)

export const volumeRoutes: readonly Route[] = [
  { method: 'GET', path: '/volumes', handle: (call) => list(call, '/volumes', volumeSummary) },
  { method: 'GET', path: '/volumes/detail', handle: (call) => list(call, '/volumes/detail', volumeJson) },
  { method: 'GET', path: '/volumes/summary', since: 12, handle: summary },
  {
    method: 'POST',
    path: '/volumes',
    async handle(call) {
      const volume = await createVolume(call.ports, call.caller, newVolumeFrom(call))
      return { status: 202, body: { volume: volumeJson(call, volume) } }
    },
  },
  {
    method: 'GET',
    path: '/volumes/:id',
    handle: async (call) => ok({ volume: volumeJson(call, await showVolume(call.ports, call.caller, part(call, 'id'))) }),
  },
  {
    method: 'PUT',
    path: '/volumes/:id',
    async handle(call) {
      const { volume } = updateBody(call.body)
      return ok({ volume: volumeJson(call, await updateVolume(call.ports, call.caller, part(call, 'id'), changesFrom(volume))) })
    },
  },
  {
    method: 'DELETE',
    path: '/volumes/:id',
    async handle({ ports, caller, query, minor, params }) {
      const how = { cascade: isYes(query.get('cascade') ?? ''), force: minor >= 23 && isYes(query.get('force') ?? '') }
      await deleteVolume(ports, caller, part({ params }, 'id'), how)
      return accepted
    },
  },
]

async function list(call: Call, path: string, show: (call: Call, volume: VolumeRecord) => object) {
  const { items, isCut, count } = await listVolumes(call.ports, call.caller, volumeQueryFrom(call))
  const last = isCut ? items.at(-1) : undefined
  return ok({
    volumes: items.map((volume) => show(call, volume)),
    ...(last ? { volumes_links: [nextLink(call.base + path, call.query, last.id)] } : {}),
    ...(call.minor >= 45 && isYes(call.query.get('with_count') ?? '') ? { count } : {}),
  })
}

async function summary(call: Call) {
  const query: ListQuery<VolumeRecord> = { ...volumeQueryFrom(call), offset: 0, limit: Number.MAX_SAFE_INTEGER }
  const { items, count } = await listVolumes(call.ports, call.caller, query)
  const metadata: Record<string, readonly string[]> = {}
  for (const volume of items) {
    for (const [name, value] of Object.entries(volume.metadata)) metadata[name] = [...new Set([...(metadata[name] ?? []), value])]
  }
  const total_size = items.reduce((sum, { sizeGiB }) => sum + sizeGiB, 0)
  return ok({ 'volume-summary': { total_size, total_count: count, ...(call.minor >= 36 ? { metadata } : {}) } })
}

export interface Named {
  readonly name?: string | null
  readonly display_name?: string | null
  readonly description?: string | null
  readonly display_description?: string | null
  readonly metadata?: Readonly<Record<string, string>> | null
}
/** What is not named stays. */
export function changesFrom({ metadata, ...named }: Named): Pick<VolumeUpdate, 'name' | 'description' | 'metadata'> {
  const name = named.name === undefined ? named.display_name : named.name
  const description = named.description === undefined ? named.display_description : named.description
  return {
    ...(name === undefined ? {} : { name: textFrom(name) }),
    ...(description === undefined ? {} : { description: textFrom(description) }),
    ...(metadata ? { metadata } : {}),
  }
}
