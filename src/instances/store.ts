import { ServiceError } from '../base/errors.ts'
import type { DocumentReader, DocumentWriter, StoredDocument } from '../store/catalog/catalog.ts'
import type { InstanceAction } from './actions/actions.ts'
import type { PortForward } from './hypervisor/hypervisor.ts'
import {
  type BackupSchedule,
  type FlavorRecord,
  type InstanceJob,
  type InstanceRecord,
  isInstanceId,
  type KeypairRecord,
  type ResumeSource,
} from './records.ts'
import type { AttachmentRecord } from './volumes/attachment.ts'

/** How flavors, keypairs and instances lie among the catalog's documents: kinds, keys and indexes are named in this file only. */

const PAGE = 500
/** A list is never read further than this: one machine runs a fraction of it. */
export const MAX_LISTED = 10_000

async function all<T>(
  docs: DocumentReader,
  kind: string,
  query: { readonly index?: { readonly name: string; readonly value: string }; readonly prefix?: string } = {},
): Promise<readonly T[]> {
  const items: T[] = []
  let after: string | undefined
  while (items.length < MAX_LISTED) {
    const page: readonly StoredDocument<T>[] = await docs.list<T>(kind, { ...query, ...(after ? { after } : {}), limit: PAGE })
    for (const { body } of page) items.push(body)
    after = page.at(-1)?.key
    if (page.length < PAGE || after === undefined) break
  }
  return items
}

export const flavors = {
  get: async (docs: DocumentReader, id: string): Promise<FlavorRecord | undefined> =>
    (await docs.get<FlavorRecord>('flavor', id))?.body,
  list: (docs: DocumentReader) => all<FlavorRecord>(docs, 'flavor'),
  byName: async (docs: DocumentReader, name: string): Promise<FlavorRecord | undefined> =>
    (await docs.list<FlavorRecord>('flavor', { index: { name: 'name', value: name }, limit: 1 }))[0]?.body,
  /** @throws ServiceError `conflict` where another one has the name */
  put: async (docs: DocumentWriter, flavor: FlavorRecord): Promise<void> => {
    await docs.put('flavor', flavor.id, flavor, { unique: { name: flavor.name } })
  },
  delete: (docs: DocumentWriter, id: string): Promise<boolean> => docs.delete('flavor', id),
}

const keypairKey = (userId: string, name: string): string => `${userId}|${name}`

export const keypairs = {
  get: async (docs: DocumentReader, userId: string, name: string): Promise<KeypairRecord | undefined> =>
    (await docs.get<KeypairRecord>('keypair', keypairKey(userId, name)))?.body,
  ofUser: (docs: DocumentReader, userId: string) => all<KeypairRecord>(docs, 'keypair', { prefix: keypairKey(userId, '') }),
  put: async (docs: DocumentWriter, keypair: KeypairRecord): Promise<void> => {
    await docs.put('keypair', keypairKey(keypair.userId, keypair.name), keypair, { expect: 0 })
  },
  delete: (docs: DocumentWriter, userId: string, name: string): Promise<boolean> =>
    docs.delete('keypair', keypairKey(userId, name)),
}

export const instances = {
  get: async (docs: DocumentReader, id: string): Promise<InstanceRecord | undefined> =>
    isInstanceId(id) ? (await docs.get<InstanceRecord>('instance', id))?.body : undefined,
  ofProject: (docs: DocumentReader, projectId: string) =>
    all<InstanceRecord>(docs, 'instance', { index: { name: 'project', value: projectId } }),
  list: (docs: DocumentReader) => all<InstanceRecord>(docs, 'instance'),
  put: async (docs: DocumentWriter, instance: InstanceRecord): Promise<void> => {
    await docs.put('instance', instance.id, instance, { indexes: { project: instance.projectId } })
  },
  delete: (docs: DocumentWriter, id: string): Promise<boolean> => docs.delete('instance', id),
}

const actionsOf = (instanceId: string): string => `${instanceId}|`
const actionKey = ({ instanceId, startedAt, requestId }: InstanceAction): string =>
  `${actionsOf(instanceId)}${String(startedAt).padStart(15, '0')}|${requestId}`

export const instanceActions = {
  /** The newest first. */
  of: async (docs: DocumentReader, instanceId: string): Promise<readonly InstanceAction[]> =>
    (await docs.list<InstanceAction>('instance-action', { prefix: actionsOf(instanceId), direction: 'desc' })).map(
      ({ body }) => body,
    ),
  put: async (docs: DocumentWriter, action: InstanceAction): Promise<void> => {
    await docs.put('instance-action', actionKey(action), action, { indexes: { instance: action.instanceId } })
  },
  delete: (docs: DocumentWriter, action: InstanceAction): Promise<boolean> => docs.delete('instance-action', actionKey(action)),
  forget: (docs: DocumentWriter, instanceId: string): Promise<number> =>
    docs.deleteWhere('instance-action', { name: 'instance', value: instanceId }),
}

/** What only a launch needs, apart from the instance, as it is up to 64 KiB. */
export interface Seed {
  /** Base64. */
  readonly userData: string | null
  /** Of the default user's password, as `/etc/shadow` has it. */
  readonly passwordHash: string | null
  /** Null: the machine starts. */
  readonly resumesFrom: ResumeSource | null
}
const noSeed: Seed = { userData: null, passwordHash: null, resumesFrom: null }

export const seeds = {
  get: async (docs: DocumentReader, id: string): Promise<Seed> => (await docs.get<Seed>('instance-seed', id))?.body ?? noSeed,
  put: async (docs: DocumentWriter, id: string, { userData, passwordHash, resumesFrom }: Seed): Promise<void> => {
    if (userData === null && passwordHash === null && resumesFrom === null) await docs.delete('instance-seed', id)
    else await docs.put<Seed>('instance-seed', id, { userData, passwordHash, resumesFrom })
  },
  delete: (docs: DocumentWriter, id: string): Promise<boolean> => docs.delete('instance-seed', id),
}

const attachmentKey = (instanceId: string, volumeId: string): string => `${instanceId}|${volumeId}`

/** Volumes that instances have. */
export const attachments = {
  get: async (docs: DocumentReader, instanceId: string, volumeId: string): Promise<AttachmentRecord | undefined> =>
    (await docs.get<AttachmentRecord>('instance-volume', attachmentKey(instanceId, volumeId)))?.body,
  ofInstance: (docs: DocumentReader, instanceId: string) =>
    all<AttachmentRecord>(docs, 'instance-volume', { prefix: attachmentKey(instanceId, '') }),
  list: (docs: DocumentReader) => all<AttachmentRecord>(docs, 'instance-volume'),
  put: async (docs: DocumentWriter, attachment: AttachmentRecord): Promise<void> => {
    await docs.put('instance-volume', attachmentKey(attachment.instanceId, attachment.volumeId), attachment)
  },
  delete: (docs: DocumentWriter, instanceId: string, volumeId: string): Promise<boolean> =>
    docs.delete('instance-volume', attachmentKey(instanceId, volumeId)),
}

export const backupSchedules = {
  get: async (docs: DocumentReader, instanceId: string): Promise<BackupSchedule | undefined> =>
    (await docs.get<BackupSchedule>('backup-schedule', instanceId))?.body,
  list: (docs: DocumentReader) => all<BackupSchedule>(docs, 'backup-schedule'),
  put: async (docs: DocumentWriter, schedule: BackupSchedule): Promise<void> => {
    await docs.put('backup-schedule', schedule.instanceId, schedule)
  },
  delete: (docs: DocumentWriter, instanceId: string): Promise<boolean> => docs.delete('backup-schedule', instanceId),
}

/** At most one of each instance. */
export const jobs = {
  get: async (docs: DocumentReader, id: string): Promise<InstanceJob | undefined> => {
    const job = (await docs.get<InstanceJob>('instance-job', id))?.body
    // those of before volumes were put back say nothing of them
    return job?.kind === 'rebuild' ? { ...job, reverts: job.reverts ?? [], partsFrom: job.partsFrom ?? null } : job
  },
  put: async (docs: DocumentWriter, id: string, job: InstanceJob): Promise<void> => {
    await docs.put<InstanceJob>('instance-job', id, job)
  },
  delete: (docs: DocumentWriter, id: string): Promise<boolean> => docs.delete('instance-job', id),
}

const portKey = ({ protocol, hostPort }: Pick<PortForward, 'protocol' | 'hostPort'>): string => `${protocol}/${hostPort}`

/** Who has which port of this machine: one holder for each, whatever its address. */
export const forwardedPorts = {
  isTaken: async (docs: DocumentReader, place: Pick<PortForward, 'protocol' | 'hostPort'>): Promise<boolean> =>
    (await docs.get('forwarded-port', portKey(place))) !== undefined,
  /** @throws ServiceError `conflict` where another instance has it */
  take: async (docs: DocumentReader & DocumentWriter, place: PortForward, instanceId: string): Promise<void> => {
    if (await forwardedPorts.isTaken(docs, place)) {
      throw new ServiceError(
        'conflict',
        `port ${place.hostPort}/${place.protocol} of the host is forwarded to an instance already: choose another, or 0 for any`,
        { port: place.hostPort },
      )
    }
    await docs.put('forwarded-port', portKey(place), { instanceId }, { indexes: { instance: instanceId } })
  },
  giveBack: (docs: DocumentWriter, instanceId: string): Promise<number> =>
    docs.deleteWhere('forwarded-port', { name: 'instance', value: instanceId }),
}
