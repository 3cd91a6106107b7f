import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cast, logIn } from '../peers/identity-client.ts'
import { adminToken, folderInMemory, removeFolder, startMortal } from './mortal-service.ts'

test('who may start the service may give the administrator a new password, and it stays', async () => {
  const folder = await folderInMemory('password')
  let service = await startMortal(folder)
  try {
    const token = await adminToken(service)
    await service.stop()
    const changed = { IMPRINT_ADMIN_PASSWORD: 'another password' }
    const login = { ...cast.admin, password: 'another password' }
    service = await startMortal(folder, changed, ['--reset-admin-password'])
    await logIn(`${service.address}/identity/v3`, login)
    await assert.rejects(adminToken(service), /401/)
    const answer = await fetch(`${service.address}/image/v2/images`, { headers: { 'x-auth-token': token } })
    assert.equal(answer.status, 401, 'earlier tokens have ended')
    await service.stop()
    service = await startMortal(folder)
    await logIn(`${service.address}/identity/v3`, login)
  } finally {
    await service.stop()
    await removeFolder(folder)
  }
})
