import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isServiceError } from '../../src/base/errors.ts'
import { writeSource } from '../fixtures/disk/disks.ts'
import { hostileCases } from '../fixtures/disk/hostile.ts'
import { lacking, run, scratch } from '../fixtures/disk/tools.ts'

/** What Node looks at by itself, and perl, which is asked for the holes of a file. */
const OWN = /^\/(proc|sys|dev|lib|lib64|usr\/lib|usr\/lib64|usr\/share\/locale)\/|^\/etc\/ld\.so\./

test('whatever a file says, no other file is opened', { skip: lacking('strace') }, async (t) => {
  const path = await scratch(t)
  await run('mkdir', path('cases'))
  let count = 0
  for (const { declared, file } of hostileCases()) {
    count += 1
    await writeSource(file, path(`cases/${count}.${declared}`)).catch((error: unknown) => {
      if (!isServiceError(error)) throw error
    })
  }
  assert.ok(count > 200, `${count} cases`)
  const program = new URL('./open-all.ts', import.meta.url).pathname
  const traced = ['-f', '-qq', '-e', 'trace=open,openat,openat2', '-e', 'signal=none', '-s', '300', '-o', path('trace')]
  await run('strace', ...traced, process.execPath, program, path('cases'))
  const lines = (await run('cat', path('trace'))).split('\n')
  const [from, to] = ['from here', 'to here'].map((mark) => lines.findIndex((line) => line.includes(`${mark}"`)))
  assert.ok(from! > 0 && to! > from!)
  const opened = lines.slice(from! + 1, to).flatMap((line) => /open(?:at2?)?\((?:AT_FDCWD, )?"([^"]*)"/.exec(line)?.[1] ?? [])
  assert.ok(opened.length >= count)
  const others = opened.filter((name) => !name.startsWith(path('cases/')) && !OWN.test(name))
  assert.deepEqual(others, [])
})
