import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lacking } from '../../../../test/fixtures/disk/tools.ts'
import { canRun } from './processor-trial.ts'

test('emulation runs a processor from real mode to long mode', { skip: lacking('qemu-system-x86_64') }, async () => {
  assert.equal(await canRun('qemu-system-x86_64', 'tcg'), true)
})

test('a program that ends otherwise, or is not there, runs none', async () => {
  assert.equal(await canRun('true', 'tcg'), false)
  assert.equal(await canRun('not-a-program', 'tcg'), false)
})
