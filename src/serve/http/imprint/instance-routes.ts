import { type Static, Type } from '@sinclair/typebox'
import { createFromMachine } from '../../../instances/create-from-machine.ts'
import { hydrateInstance } from '../../../instances/hydrate.ts'
import { cancelJob, showJob } from '../../../instances/job-control.ts'
import { migrateInstance } from '../../../instances/migrate/begin-migrate.ts'
import { showMigration } from '../../../instances/migrate/show-migration.ts'
import { restoreInstance } from '../../../instances/rebuild/begin-rebuild.ts'
import type { BackupSchedule } from '../../../instances/records.ts'
import { endBackupSchedule, scheduleBackups, showBackupSchedule } from '../../../instances/snapshots/backup-schedules.ts'
import { cloneInstance } from '../../../instances/snapshots/clone.ts'
import { createSnapshot } from '../../../instances/snapshots/create-snapshot.ts'
import { type Route, route } from './route.ts'
import type { ImprintServices } from './services.ts'

const strict = { additionalProperties: false } as const
const uuid = Type.String({ pattern: '^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$' })
const params = Type.Object({ id: uuid })
const name = Type.String({ minLength: 1, maxLength: 255, pattern: '^[^\\u0000-\\u001f\\u007f]*$' })

const NewSnapshot = Type.Object(
  {
    name,
    memory: Type.Optional(Type.Boolean({ description: 'keep what runs as well, so that what is made of it goes on there' })),
    machine: Type.Optional(
      Type.Boolean({ description: 'say in the image what the machine was, so that the same can be made of it' }),
    ),
    properties: Type.Optional(Type.Record(Type.String({ minLength: 1, maxLength: 255 }), Type.String({ maxLength: 255 }))),
  },
  strict,
)
const NewInstance = Type.Object(
  {
    image: Type.String({ ...uuid, description: 'a snapshot that tells what its machine was' }),
    name,
    flavor: Type.Optional(Type.String({ minLength: 1, maxLength: 255, description: 'absent: the one that the machine had' })),
    memory: Type.Optional(Type.Boolean({ description: 'go on where that machine was' })),
  },
  strict,
)
const Restore = Type.Object(
  { image: uuid, memory: Type.Optional(Type.Boolean({ description: 'go on where the memory in it was' })) },
  strict,
)
const Clone = Type.Object({ name }, strict)
const plan = {
  everyHours: Type.Integer({ minimum: 1, maximum: 8760 }),
  backupType: Type.String({
    minLength: 1,
    maxLength: 40,
    pattern: '^[^\\u0000-\\u001f\\u007f]*$',
    description: '`daily`, `weekly` …',
  }),
  rotation: Type.Integer({ minimum: 1, maximum: 1000, description: 'how many of that type are kept' }),
}
const Plan = Type.Object(plan, strict)
const Schedule = Type.Object({
  ...plan,
  nextAt: Type.String({ description: 'ISO 8601' }),
  lastProblem: Type.Union([Type.String(), Type.Null()], { description: 'why the last one could not be begun' }),
})

const Job = Type.Object({
  kind: Type.Union([Type.Literal('snapshot'), Type.Literal('rebuild'), Type.Literal('hydrate'), Type.Literal('migrate')]),
  taskState: Type.Union([Type.String(), Type.Null()], { description: "Nova's word for the step" }),
  doneBytes: Type.Union([Type.Integer(), Type.Null()]),
  totalBytes: Type.Union([Type.Integer(), Type.Null()]),
})

const hostName = Type.String({ minLength: 1, maxLength: 255 })
const Migrate = Type.Object(
  { host: Type.Optional(Type.Union([hostName, Type.Null()], { description: 'absent: the one with the most memory left' })) },
  strict,
)
const Migration = Type.Object({
  from: hostName,
  to: hostName,
  downtimeMs: Type.Union([Type.Integer(), Type.Null()], {
    description: 'for how long the guest stood still; null: nobody knows',
  }),
  bytes: Type.Union([Type.Integer(), Type.Null()], { description: 'of memory and disks, from host to host' }),
  at: Type.String({ description: 'ISO 8601' }),
})

const members = 'members of the project that owns it, administrators'
const common = ['unauthenticated', 'denied', 'not-found'] as const

export const instanceRoutes = ({ instances: ports }: ImprintServices): readonly Route[] => [
  route({
    method: 'POST',
    path: '/instances',
    summary: 'Make the machine of an image again',
    description:
      'Flavor, hardware, key, metadata and user data are those of the machine; id, ports and volumes are its own, these with what was in the others.',
    who: 'members who may start from the image',
    body: NewInstance,
    reply: { status: 202, body: Type.Object({ id: uuid }), description: 'the new instance, which is being built' },
    errors: ['unauthenticated', 'denied', 'over-quota', 'invalid-request', 'unavailable'],
    async handle({ caller, body: { image, name, flavor, memory = false } }) {
      const wish = { name, imageId: image.toLowerCase(), flavorId: flavor, withMemory: memory }
      return { id: (await createFromMachine(ports, caller, wish)).id }
    },
  }),
  route({
    method: 'POST',
    path: '/instances/:id/snapshots',
    summary: 'Make an image of an instance as it is now',
    description:
      'As `createImage` of the compute API, which has no word for memory. With the machine, or its memory, its volumes are in it, too.',
    who: members,
    params,
    body: NewSnapshot,
    reply: { status: 202, body: Type.Object({ image: uuid }), description: 'begun; the image becomes active' },
    errors: [...common, 'conflict', 'over-quota', 'invalid-request', 'unavailable'],
    async handle({ caller, params: { id }, body: { name, memory = false, machine = false, properties = {} } }) {
      return { image: await createSnapshot(ports, caller, id, { name, properties, withMemory: memory, withMachine: machine }) }
    },
  }),
  route({
    method: 'POST',
    path: '/instances/:id/restore',
    summary: 'Put an instance back to a snapshot of its own',
    description:
      'What was written since is gone, on volumes that the snapshot holds or names, too; id, address, ports and flavor stay.',
    who: members,
    params,
    body: Restore,
    reply: { status: 202, description: 'begun' },
    errors: [...common, 'conflict', 'invalid-request', 'unavailable'],
    async handle({ caller, params: { id }, body: { image, memory = false } }) {
      await restoreInstance(ports, caller, id, { imageId: image.toLowerCase(), withMemory: memory })
    },
  }),
  route({
    method: 'POST',
    path: '/instances/:id/clone',
    summary: 'Make another instance like this one, on its disk as it is now',
    description: 'It goes on meanwhile. The new one has an id, an address and ports of its own; no image stays.',
    who: members,
    params,
    body: Clone,
    reply: { status: 202, body: Type.Object({ id: uuid }), description: 'the new instance, which is being built' },
    errors: [...common, 'conflict', 'over-quota', 'invalid-request', 'unavailable'],
    async handle({ caller, params: { id }, body: { name } }) {
      return { id: (await cloneInstance(ports, caller, id, { name })).id }
    },
  }),
  route({
    method: 'POST',
    path: '/instances/:id/hydrate',
    summary: 'Copy what an instance lies on into its own files',
    description: 'While it runs. Afterwards it needs neither the image nor the store any more.',
    who: members,
    params,
    reply: { status: 202, description: 'begun' },
    errors: [...common, 'conflict', 'unavailable'],
    async handle({ caller, params: { id } }) {
      await hydrateInstance(ports, caller, id)
    },
  }),
  route({
    method: 'POST',
    path: '/instances/:id/migrate',
    summary: 'Move an instance to another host while it runs',
    description: 'How far it is, the job says; how it went, the migration.',
    who: 'administrators',
    params,
    body: Migrate,
    reply: { status: 202, description: 'begun' },
    errors: [...common, 'conflict', 'invalid-request', 'unavailable'],
    async handle({ caller, params: { id }, body: { host } }) {
      await migrateInstance(ports, caller, id, { to: host ?? null })
    },
  }),
  route({
    method: 'GET',
    path: '/instances/:id/migration',
    summary: 'How an instance came to its host',
    who: 'administrators',
    params,
    reply: { status: 200, body: Migration, description: '`not-found` where it was made there' },
    errors: [...common],
    async handle({ caller, params: { id } }): Promise<Static<typeof Migration>> {
      const { at, ...migration } = await showMigration(ports, caller, id)
      return { ...migration, at: new Date(at).toISOString() }
    },
  }),
  route({
    method: 'GET',
    path: '/instances/:id/job',
    summary: 'How far a snapshot, a clone, a backup, a rebuild, a hydration or a migration is',
    who: 'members and readers of the project that owns it, administrators',
    params,
    reply: { status: 200, body: Job, description: '`not-found` where there is none' },
    errors: ['unauthenticated', 'not-found'],
    async handle({ caller, params: { id } }): Promise<Static<typeof Job>> {
      const { kind, taskState, progress } = await showJob(ports, caller, id)
      return { kind, taskState, doneBytes: progress?.doneBytes ?? null, totalBytes: progress?.totalBytes ?? null }
    },
  }),
  route({
    method: 'DELETE',
    path: '/instances/:id/job',
    summary: 'End what is done to an instance',
    description:
      'Of a snapshot, a clone or a backup nothing is left, a hydration begins anew another time, and an instance that has not gone to another host by then stays. A rebuild is brought to its end.',
    who: members,
    params,
    reply: { status: 202, description: 'it ends, and the instance is as it was; one that had come to its end by then stays' },
    errors: [...common, 'conflict'],
    async handle({ caller, params: { id } }) {
      await cancelJob(ports, caller, id)
    },
  }),
  route({
    method: 'PUT',
    path: '/instances/:id/backup-schedule',
    summary: 'Make backups of an instance every so many hours',
    who: members,
    params,
    body: Plan,
    reply: { status: 200, body: Schedule, description: 'the first one is made at once' },
    errors: [...common, 'conflict', 'invalid-request'],
    handle: async ({ caller, params: { id }, body }) => scheduleBody(await scheduleBackups(ports, caller, id, body)),
  }),
  route({
    method: 'GET',
    path: '/instances/:id/backup-schedule',
    summary: 'When backups of an instance are made',
    who: 'members and readers of the project that owns it, administrators',
    params,
    reply: { status: 200, body: Schedule, description: 'the schedule' },
    errors: ['unauthenticated', 'not-found'],
    handle: async ({ caller, params: { id } }) => scheduleBody(await showBackupSchedule(ports, caller, id)),
  }),
  route({
    method: 'DELETE',
    path: '/instances/:id/backup-schedule',
    summary: 'Make no more backups of an instance',
    who: members,
    params,
    reply: { status: 204, description: 'ended; the backups stay' },
    errors: [...common],
    async handle({ caller, params: { id } }) {
      await endBackupSchedule(ports, caller, id)
    },
  }),
]

const scheduleBody = ({ everyHours, backupType, rotation, nextAt, lastProblem }: BackupSchedule): Static<typeof Schedule> => ({
  everyHours,
  backupType,
  rotation,
  nextAt: new Date(nextAt).toISOString(),
  lastProblem,
})
