import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { lockFolder } from './folder-lock.ts'

const place = () => join(mkdtempSync(join(tmpdir(), 'imprint-lock-')), 'lock')

test('a folder has one holder at a time', () => {
  const path = place()
  const unlock = lockFolder(path)
  assert.throws(() => lockFolder(path), { code: 'conflict' })
  unlock()
  lockFolder(path)()
})

test('the lock of a process that was killed is free', async () => {
  const path = place()
  const code = `import { lockFolder } from ${JSON.stringify(new URL('./folder-lock.ts', import.meta.url).href)}
    lockFolder(${JSON.stringify(path)}); console.log('held'); setInterval(() => {}, 1000)`
  const holder = spawn(process.execPath, ['--input-type=module-typescript', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(holder.stdout, 'data')
  assert.throws(() => lockFolder(path), { code: 'conflict' })
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  lockFolder(path)()
})
