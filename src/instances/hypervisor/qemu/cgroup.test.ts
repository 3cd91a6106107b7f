import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { divide } from './cgroup.ts'

const unified = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find((path) => existsSync(join(path, 'cgroup.procs')))
const skip = (process.getuid?.() !== 0 && 'only root can') || (!unified && 'there are no control groups of version 2')

test('a group is made, and what the host has of controllers is there for groups below it', { skip }, async (t) => {
  const cgroup = join(unified!, `imprint-test-${randomUUID()}`)
  t.after(() => rmdirSync(cgroup))
  const controllers = await divide(cgroup)
  const enabled = readFileSync(join(cgroup, 'cgroup.subtree_control'), 'utf8').trim().split(' ').filter(Boolean)
  assert.deepEqual([...controllers].sort(), enabled.sort())
  assert.deepEqual(await divide(cgroup), controllers, 'at the next start it is there')
})

test('what the group has not is asked of its parent, where that has it', async (t) => {
  const parent = mkdtempSync(join(tmpdir(), 'cgroup-'))
  t.after(() => rmSync(parent, { recursive: true }))
  const cgroup = join(parent, 'machines') // files that stand for the kernel's
  mkdirSync(cgroup)
  for (const [folder, has] of [
    [parent, 'cpuset cpu memory'],
    [cgroup, 'memory'],
  ] as const) {
    writeFileSync(join(folder, 'cgroup.controllers'), `${has}\n`)
    writeFileSync(join(folder, 'cgroup.subtree_control'), '')
  }
  assert.deepEqual(await divide(cgroup), ['memory'], 'the kernel would have handed on the rest by now')
  assert.equal(readFileSync(join(parent, 'cgroup.subtree_control'), 'utf8'), '+cpu')
  assert.equal(readFileSync(join(cgroup, 'cgroup.subtree_control'), 'utf8'), '+memory')
})

test('a folder that is no control group is refused, and none is made there', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'no-cgroup-'))
  t.after(() => rmdirSync(folder))
  for (const path of [folder, join(folder, 'machines'), '/proc/self']) {
    await assert.rejects(divide(path), { code: 'invalid-request', message: /instanceCgroup: .* no control group of version 2/ })
  }
  assert.ok(!existsSync(join(folder, 'machines')))
})
