import type { Caller } from '../../../base/caller.ts'
import type { VolumeRecord } from '../../../volumes/records.ts'
import { isoMicroseconds } from '../times.ts'
import type { Call } from './route.ts'
import { volumeType } from './type-routes.ts'

/** There is one, as in most clouds. */
export const ZONE = 'nova'

type Look = Pick<Call, 'base' | 'bookmarks' | 'minor' | 'ports'> & { readonly caller: Caller }

const linksOf = ({ base, bookmarks }: Look, id: string) => [
  { rel: 'self', href: `${base}/volumes/${id}` },
  { rel: 'bookmark', href: `${bookmarks}/volumes/${id}` },
]

export const volumeSummary = (look: Look, { id, name }: VolumeRecord) => ({ id, name: name ?? '', links: linksOf(look, id) })

/** A volume in the words of the version that the client speaks; what concerns the host is for administrators. */
export function volumeJson(look: Look, volume: VolumeRecord): object {
  const { id, name, description, status, sizeGiB, source, metadata, imageMetadata, userId, projectId } = volume
  const { caller, minor, ports } = look
  return {
    id,
    name: name ?? '',
    description,
    status,
    size: sizeGiB,
    bootable: String(volume.isBootable),
    metadata: { ...metadata, ...(volume.isReadOnly ? { readonly: 'True' } : {}) },
    ...(imageMetadata ? { volume_image_metadata: imageMetadata } : {}),
    snapshot_id: source.kind === 'snapshot' ? source.snapshotId : null,
    source_volid: source.kind === 'volume' ? source.volumeId : null,
    attachments: attachmentsOf(look, volume),
    availability_zone: ZONE,
    volume_type: volumeType.name,
    user_id: userId,
    'os-vol-tenant-attr:tenant_id': projectId,
    created_at: isoMicroseconds(volume.createdAt),
    updated_at: isoMicroseconds(volume.updatedAt),
    encrypted: false,
    multiattach: false,
    replication_status: null,
    consistencygroup_id: null,
    migration_status: null,
    links: linksOf(look, id),
    ...(caller.isAdmin
      ? {
          'os-vol-host-attr:host': `${ports.settings.hostName}@imprint#imprint`,
          'os-vol-mig-status-attr:migstat': null,
          'os-vol-mig-status-attr:name_id': null,
        }
      : {}),
    ...sinceVersion(minor, caller),
  }
}

/** What later versions added. */
const sinceVersion = (minor: number, { isAdmin }: Caller) => ({
  ...(minor >= 13 ? { group_id: null } : {}),
  ...(minor >= 21 && isAdmin ? { provider_id: null } : {}),
  ...(minor >= 48 ? { service_uuid: null, shared_targets: false } : {}),
  ...(minor >= 61 && isAdmin ? { cluster_name: null } : {}),
  ...(minor >= 63 ? { volume_type_id: volumeType.id } : {}),
  ...(minor >= 65 ? { consumes_quota: true } : {}),
})

function attachmentsOf({ caller, ports }: Look, { id, attachment, status }: VolumeRecord): readonly object[] {
  if (!attachment?.device || attachment.at === null || status === 'attaching') return []
  return [
    {
      id,
      volume_id: id,
      attachment_id: attachment.id,
      server_id: attachment.instanceId,
      device: attachment.device,
      attached_at: isoMicroseconds(attachment.at),
      host_name: caller.isAdmin ? ports.settings.hostName : null,
    },
  ]
}
