import assert from 'node:assert/strict'
import { appendFile, stat, symlink, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { scratch } from '../../../../test/fixtures/disk/tools.ts'
import { MiB } from '../../../base/units.ts'
import { ConsoleLog } from './console-log.ts'

test('the newest is kept whatever is written, in bounded space', async (context) => {
  const at = await scratch(context)
  const log = new ConsoleLog(at('console'), at('older'))
  let all = ''
  for (let line = 0; all.length < 5 * MiB; ) {
    let part = ''
    while (part.length < 300_000) part += `line ${line++}\n`
    await appendFile(at('console'), part)
    all += part
    await log.cut()
    assert.equal(Buffer.from(await log.tail(MiB)).toString(), all.slice(-MiB))
    assert.equal(Buffer.from(await log.tail(7)).toString(), all.slice(-7))
  }
  const sizes = await Promise.all([stat(at('console')), stat(at('older'))])
  assert.ok(sizes[0].size + sizes[1].size <= 2 * MiB)
  assert.ok((await log.tail(100 * MiB)).length <= 2 * MiB)
})

test('nothing there is nothing written', async (context) => {
  const at = await scratch(context)
  const log = new ConsoleLog(at('console'), at('older'))
  await log.cut()
  assert.equal((await log.tail(10)).length, 0)
})

test('a link in the place of the log is neither read nor cut', async (context) => {
  const at = await scratch(context)
  await writeFile(at('precious'), Buffer.alloc(3 * MiB, 1))
  await symlink(at('precious'), at('console'))
  const log = new ConsoleLog(at('console'), at('older'))
  await log.cut()
  assert.equal((await log.tail(10)).length, 0)
  assert.equal((await stat(at('precious'))).size, 3 * MiB)
})
