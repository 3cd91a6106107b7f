import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { deleteInstance } from '../delete-instance.ts'
import { instanceWorld, someone } from '../instance-world.suite.ts'
import { pauseInstance } from '../power/actions.ts'
import { beginDueBackups, endBackupSchedule, scheduleBackups, showBackupSchedule } from './backup-schedules.ts'

const HOUR_MS = 3_600_000
let now = Date.UTC(2026, 10, 21, 12)
const world = await instanceWorld({ now: () => now })
after(() => world.close())
const member = someone('mine')
const daily = { everyHours: 24, backupType: 'daily', rotation: 2 }

const due = async () => {
  const begun = await beginDueBackups(world.ports)
  await world.idle()
  return begun
}
const backupsOf = (id: string) =>
  [...world.images.images.values()].filter(({ properties }) => properties.instance_uuid === id).map(({ name }) => name)

test('the first backup is made at once, the next when its time has come, and the oldest goes', async () => {
  const { id } = await world.createOne(member)
  await scheduleBackups(world.ports, member, id, daily)
  assert.equal(await due(), 1)
  assert.deepEqual(backupsOf(id), ['web daily 2026-11-21T12:00:00Z'])
  assert.equal(await due(), 0)
  now += 24 * HOUR_MS
  assert.equal(await due(), 1)
  now += 100 * HOUR_MS // the service was away: one, and not four
  assert.equal(await due(), 1)
  assert.equal(await due(), 0)
  assert.deepEqual(backupsOf(id), ['web daily 2026-11-22T12:00:00Z', 'web daily 2026-11-26T16:00:00Z'])
  assert.equal((await showBackupSchedule(world.ports, member, id)).nextAt, now + 24 * HOUR_MS)
  await endBackupSchedule(world.ports, member, id)
  now += 24 * HOUR_MS
  assert.equal(await due(), 0)
  await assert.rejects(showBackupSchedule(world.ports, member, id), { code: 'not-found' })
})

test('an instance that is busy is backed up a minute later; what cannot be begun says why and is tried again in its time', async () => {
  const { id } = await world.createOne(member)
  await scheduleBackups(world.ports, member, id, daily)
  await pauseInstance(world.ports, member, id)
  assert.equal(await beginDueBackups(world.ports), 0)
  await world.idle()
  assert.equal(await due(), 1)
  world.host.machine(id).crash('killed')
  await world.idle()
  now += 24 * HOUR_MS
  assert.equal(await due(), 0)
  const { lastProblem, nextAt } = await showBackupSchedule(world.ports, member, id)
  assert.match(lastProblem!, /vm_state error/)
  assert.equal(nextAt, now + 24 * HOUR_MS)
})

test('strangers and readers set no schedule; with the instance it goes', async () => {
  const { id } = await world.createOne(member)
  await assert.rejects(scheduleBackups(world.ports, someone('theirs'), id, daily), { code: 'not-found' })
  await assert.rejects(scheduleBackups(world.ports, someone('mine', 'reader'), id, daily), { code: 'denied' })
  await scheduleBackups(world.ports, member, id, daily)
  assert.equal((await showBackupSchedule(world.ports, someone('mine', 'reader'), id)).rotation, 2)
  await deleteInstance(world.ports, member, id)
  await world.idle()
  assert.deepEqual(
    await world.catalog.documents.list('backup-schedule', { limit: 10 }).then((all) => all.map(({ key }) => key).includes(id)),
    false,
  )
})
