import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { assertReaches, systemUser } from './system-user.ts'

const skip = process.getuid?.() !== 0 && 'only root can become another user'
const refused = [
  { name: 'nobody-of-that-name', says: /no user "nobody-of-that-name"; make one: useradd/ },
  { name: '--service=group', says: /no user/ },
  { name: 'a user\nroot', says: /no user/ },
  { name: 'root', says: /is root/ },
  { name: '0', says: /is root/ },
]
for (const { name, says } of refused) {
  test(`${JSON.stringify(name)} is nobody whom QEMU could run as`, async () => {
    await assert.rejects(systemUser(name), { code: 'invalid-request', message: says })
  })
}

test('a user is found by name and by number', { skip }, async () => {
  const nobody = await systemUser('nobody')
  assert.ok(nobody.uid > 0)
  assert.deepEqual(await systemUser(String(nobody.uid)), nobody)
})

test('a socket is reached when it and the folders above it are open to the user, and what is not is named', {
  skip,
}, async (t: TestContext) => {
  const user = await systemUser('nobody')
  const top = mkdtempSync(join(tmpdir(), 'reach-'))
  t.after(() => rmSync(top, { recursive: true }))
  const inner = join(top, 'with a space')
  mkdirSync(inner, { mode: 0o711 })
  const path = join(inner, 'nbd.sock')
  const server = createServer().listen(path)
  t.after(() => server.close())
  await once(server, 'listening')
  chmodSync(path, 0o600)
  await assert.rejects(assertReaches(user, path), {
    code: 'invalid-request',
    message: new RegExp(`${top} is closed to it; chmod o\\+x '${top}'`),
  })
  chmodSync(top, 0o711)
  await assert.rejects(assertReaches(user, path), { code: 'invalid-request', message: /nbd\.sock is closed to it; chown it/ })
  chownSync(path, user.uid, user.gid)
  await assertReaches(user, path)
})
