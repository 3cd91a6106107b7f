import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ServiceError } from '../../../base/errors.ts'
import { absentHypervisor } from './absent-hypervisor.ts'

test('whatever is asked of it fails with the reason, and it can be watched and closed', async () => {
  const reason = new ServiceError('unavailable', 'QEMU is not installed')
  const absent = absentHypervisor(reason)
  assert.throws(() => absent.abilities, reason)
  const calls = [
    'launch',
    'start',
    'list',
    'show',
    'stop',
    'reboot',
    'pause',
    'resume',
    'consoleLog',
    'serial',
    'seal',
    'openLayer',
    'rebase',
    'hydrate',
    'saveMemory',
    'receive',
    'withdraw',
    'specOf',
    'migrateTo',
    'attach',
    'detach',
    'remove',
  ] as const
  for (const call of calls) await assert.rejects((absent[call] as () => Promise<unknown>)(), reason, call)
  absent.watch(() => {})()
  await absent.close()
})
