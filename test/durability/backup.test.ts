/** The whole service into a folder, a little more each time, and up again from it. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { cpSync, existsSync, readFileSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { command } from '../peers/command.ts'
import { assembleCast, cast, logIn } from '../peers/identity-client.ts'
import { ImageRequests, smallDisk } from './image-requests.ts'
import { adminToken, folderInMemory, removeFolder, startMortal } from './mortal-service.ts'
import { populate, stateOf } from './whole-service.ts'

const root = resolve(import.meta.dirname, '../..')

test('a service is started from its backup, which was made bit by bit while it worked', async () => {
  const folder = await folderInMemory('backup')
  const backup = join(await realpath(folder), 'backup')
  let service = await startMortal(folder)
  try {
    const people = await assembleCast(`${service.address}/identity/v3`)
    const images = new ImageRequests(service.address, people.admin.token)
    const sent = new Map(await populate(images, people, [smallDisk(1), smallDisk(2)]))
    const { result: whole } = await images.job('backup', { folder: backup })
    assert.ok(whole.copiedBytes > 300_000)

    for (const [id, bytes] of await populate(images, people, [smallDisk(3)])) sent.set(id, bytes)
    const doomed = [...sent.keys()][0]!
    await images.delete(doomed)
    sent.delete(doomed)
    await images.job('collect')
    const { result: next } = await images.job('backup', { folder: backup })
    assert.ok(next.copiedBytes < whole.copiedBytes && next.kept > 0 && next.removed > 0, JSON.stringify(next))

    const marker = JSON.parse(readFileSync(join(backup, 'backup.json'), 'utf8'))
    assert.ok(marker.completedAt)
    const before = await stateOf(images)
    await refusals(images, people.member.token, folder, backup)

    const restored = await folderInMemory('restored')
    try {
      cpSync(backup, join(restored, 'data'), { recursive: true })
      await images.create(randomUUID(), 'a past that the restored service does not know')
      await images.job('backup', { folder: backup })
      await service.stop()
      service = await startMortal(restored)
      const again = new ImageRequests(service.address, await adminToken(service))
      assert.deepEqual(await stateOf(again), before)
      for (const [id, bytes] of sent) assert.equal(Buffer.compare(await again.fetch(id), bytes), 0)
      await logIn(`${service.address}/identity/v3`, cast.member)
      assert.deepEqual((await again.job('check', { readData: true })).faults, [])
      const id = randomUUID()
      await again.create(id, 'after')
      await again.send(id, smallDisk(9))
      assert.equal(Buffer.compare(await again.fetch(id), smallDisk(9)), 0)
      await assert.rejects(again.job('backup', { folder: backup }), { code: 'conflict' }, 'its past is another one now')
    } finally {
      await service.stop()
      await removeFolder(restored)
    }
  } finally {
    await service.stop()
    await removeFolder(folder)
  }
})

/** Who may not, and which folders will not do; and the command as an administrator types it. */
async function refusals(images: ImageRequests, memberToken: string, folder: string, backup: string): Promise<void> {
  const member = new ImageRequests(images.address, memberToken)
  await assert.rejects(member.job('backup', { folder: backup }), { status: 403 })
  for (const wrong of ['backup', join(folder, 'data/backup'), join(folder, 'data')]) {
    await assert.rejects(images.job('backup', { folder: wrong }), { code: 'invalid-request' }, wrong)
  }
  assert.ok(!existsSync(join(folder, 'data/backup')))

  const env = {
    OS_AUTH_URL: `${images.address}/identity/v3`,
    OS_USERNAME: cast.admin.user,
    OS_PASSWORD: cast.admin.password,
    OS_PROJECT_NAME: cast.admin.project,
    NODE_TEST_CONTEXT: undefined,
  }
  const imprint = (...args: string[]) => command([process.execPath, join(root, 'src/main.ts'), ...args], { env, input: '' })
  const done = await imprint('store', 'backup', backup)
  assert.equal(done.code, 0, done.stderr)
  assert.match(done.stdout, /blobs copied/)
  const refused = await imprint('store', 'backup', 'relative')
  assert.equal(refused.code, 1, refused.stderr)
  assert.match(refused.stderr, /whole path/)
}
