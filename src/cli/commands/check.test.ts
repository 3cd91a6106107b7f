import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, truncate, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type TestContext, test } from 'node:test'
import { lacking, scratch } from '../../../test/fixtures/disk/tools.ts'
import { imprint } from '../disk-file/child.suite.ts'

const skip = lacking('mke2fs') || lacking('sfdisk') || lacking('mkswap')
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }
const START = 2048 * 512

/** A disk with a root of these files, a swap partition that was written to, and a file system that nothing mounts. */
async function machineDisk(t: TestContext, files: Readonly<Record<string, string>>, hasMore: boolean): Promise<string> {
  const path = await scratch(t)
  for (const [name, content] of Object.entries({ 'etc/os-release': 'ID=debian\n', ...files })) {
    await mkdir(dirname(path(`root/${name}`)), { recursive: true })
    await writeFile(path(`root/${name}`), content)
  }
  const parts = [
    ['root', 16, 'L'],
    ['swap', 1, 'S'],
    ['other', 4, 'L'],
    ['unknown', 1, 'L'],
  ] as const
  const used = hasMore ? parts : parts.slice(0, 1)
  const table = used.map(([, mebibytes, type]) => `size=${mebibytes}MiB, type=${type}\n`)
  const disk = path('disk.raw')
  await writeFile(disk, '')
  await truncate(disk, 32 * 2 ** 20)
  execFileSync('sfdisk', ['-q', disk], { env, input: `label: dos\n${table.join('')}` })
  const make = ['-q', '-F', '-t', 'ext4', '-E', `offset=${START}`, '-d', path('root'), disk, '16384k']
  execFileSync('mke2fs', make, { env, stdio: 'pipe' })
  if (!hasMore) return disk
  await writeFile(path('swap'), '')
  await truncate(path('swap'), 2 ** 20)
  execFileSync('mkswap', [path('swap')], { env, stdio: 'pipe' })
  execFileSync('dd', [`if=${path('swap')}`, `of=${disk}`, 'bs=1M', 'seek=17', 'conv=notrunc'], { stdio: 'pipe' })
  execFileSync('dd', ['if=/dev/urandom', `of=${disk}`, 'bs=4k', 'count=1', `seek=${17 * 256 + 3}`, 'conv=notrunc'], {
    stdio: 'pipe',
  })
  await mkdir(path('other/srv'), { recursive: true })
  await writeFile(path('other/srv/.pgpass'), 'host:1:db:me:hunter2\n')
  execFileSync('mke2fs', ['-q', '-F', '-E', `offset=${18 * 2 ** 20}`, '-d', path('other'), disk, '4096k'], { env, stdio: 'pipe' })
  return disk
}

test('what a disk gives away is told with its remedy, and the status says whether it is fit for others', { skip }, async (t) => {
  const disk = await machineDisk(
    t,
    { 'root/.bash_history': 'ls\n', 'root/.netrc': 'machine a password hunter2\n', 'tmp/\x1b[2J': 'x' },
    true,
  )
  const shown = await imprint(['check', disk])
  assert.equal(shown.code, 1, shown.stderr)
  for (const says of [
    /^✗ high {4}credentials {2}A file that programs keep/m,
    /^ {10}\/root\/\.netrc {2}netrc with passwords$/m,
    /^! medium {2}history /m,
    /^ {10}partition 2: pages that were swapped out$/m,
    /^· low {5}temporary-files/m,
    /^ {10}\/srv\/\.pgpass {2}partition 3: PostgreSQL passwords$/m,
    /partition 4 \(nothing that is known\) has no files that can be read, and was not looked at/,
    /^✗ not fit for others: 2 high, 2 medium, 1 low, and not everything could be looked at$/m,
  ])
    assert.match(shown.stdout, says)
  assert.ok(!shown.stdout.includes('hunter2') && !shown.stdout.includes('\x1b'))
  const { findings, isComplete, passes } = JSON.parse((await imprint(['check', disk, '--json'])).stdout)
  assert.deepEqual([isComplete, passes, findings.length], [false, false, 5])
  assert.deepEqual(Object.keys(findings[0]), ['rule', 'level', 'path', 'what', 'remedy'])
})

test('a level is what fails, and rules are what must be there', { skip }, async (t) => {
  const disk = await machineDisk(t, { 'root/.bash_history': 'ls\n' }, false)
  assert.equal((await imprint(['check', disk])).code, 1)
  const high = await imprint(['check', disk, '--level', 'high'])
  assert.deepEqual(
    [high.code, /✓ fit for others: 1 medium; nothing of level high or above/.test(high.stdout)],
    [0, true],
    high.stdout,
  )

  const rules = `${disk}.json`
  await writeFile(rules, '{"requires": [{"name": "agent", "anyOf": [{"file": "/usr/bin/agent"}]}]}')
  const ruled = await imprint(['check', disk, '--level', 'high', '--rules', rules])
  assert.equal(ruled.code, 1)
  assert.match(ruled.stdout, /✗ high {4}agent-missing .*\n +agent: there is none of the file \/usr\/bin\/agent\n/)
  await writeFile(rules, '{"requires": [{"anyOff": []}]}')
  const wrong = await imprint(['check', disk, '--rules', rules])
  assert.equal(wrong.code, 1)
  assert.match(wrong.stderr, /the rules in .*: requires\[0\] has "anyOff", which is none of name, why, level, anyOf/)
})
