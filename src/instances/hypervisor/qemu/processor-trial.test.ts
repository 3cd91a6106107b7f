import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lacking } from '../../../../test/fixtures/disk/tools.ts'
import { canRun, workingAccelerators } from './processor-trial.ts'

test('emulation runs a processor from real mode to long mode', { skip: lacking('qemu-system-x86_64') }, async () => {
  assert.equal(await canRun('qemu-system-x86_64', 'tcg'), true)
})

test('what works is found out, and emulation is among it', { skip: lacking('qemu-system-x86_64') }, async () => {
  assert.equal((await workingAccelerators('qemu-system-x86_64')).at(-1), 'tcg')
})

test('a program that ends otherwise, or is not there, runs none', async () => {
  assert.equal(await canRun('true', 'tcg'), false)
  assert.equal(await canRun('not-a-program', 'tcg'), false)
  assert.deepEqual(await workingAccelerators('true'), [])
})
