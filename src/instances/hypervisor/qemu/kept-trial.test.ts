import assert from 'node:assert/strict'
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { triedAccelerators } from './kept-trial.ts'

/** A program that says of itself that it runs machines, and counts how often it was asked. */
async function countingProgram(folder: string) {
  const path = join(folder, 'qemu')
  const asked = join(folder, 'asked')
  await writeFile(asked, '')
  await writeFile(path, `#!/bin/sh\necho asked >>${asked}\nexit 85\n`)
  await chmod(path, 0o755)
  return { path, count: async () => (await readFile(asked, 'utf8')).split('\n').length - 1 }
}

test('what a trial found is kept, and found again only while nothing has changed', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-trial-'))
  t.after(() => rm(folder, { recursive: true }))
  const program = await countingProgram(folder)
  assert.deepEqual(await triedAccelerators(folder, program.path), ['kvm', 'tcg'])
  assert.deepEqual(await triedAccelerators(folder, program.path), ['kvm', 'tcg'])
  assert.equal(await program.count(), 2, 'one trial of each')
  await triedAccelerators(folder, program.path, { uid: process.getuid!(), gid: process.getgid!() })
  assert.equal(await program.count(), 4, 'another user')
  await writeFile(program.path, await readFile(program.path))
  await chmod(program.path, 0o700)
  await triedAccelerators(folder, program.path)
  assert.equal(await program.count(), 6, 'another program')
})

test('a file that was cut or changed is a file that is not there', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'imprint-trial-'))
  t.after(() => rm(folder, { recursive: true }))
  const program = await countingProgram(folder)
  for (const text of ['', '{', 'null', '{"host":1,"accelerators":[]}', '{"host":"another","accelerators":["kvm"]}']) {
    await writeFile(join(folder, 'accelerators.json'), text)
    const before = await program.count()
    assert.deepEqual(await triedAccelerators(folder, program.path), ['kvm', 'tcg'])
    assert.equal(await program.count(), before + 2, text)
  }
})
