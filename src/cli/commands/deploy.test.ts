import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, stat, truncate, writeFile } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import { lacking, scratch } from '../../../test/fixtures/disk/tools.ts'
import { MiB } from '../../base/units.ts'
import { memorySource } from '../../disk/block/memory-source.ts'
import { wrapDisk } from '../../disk/formats/index.ts'
import type { Environment } from '../output.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../real-service.suite.ts'
import { run, userOf } from '../run-cli.suite.ts'

let service: RealService
let admin: Environment
const CHUNK = 65_536
const v1 = Buffer.concat([randomBytes(5 * MiB), Buffer.alloc(4 * MiB), randomBytes(3 * MiB + 512)])
const v2 = Buffer.from(v1)
v2.set(randomBytes(2 * CHUNK), 3 * MiB)

before(async () => {
  service = await startService()
  admin = userOf(service.url, 'admin', ADMIN_PASSWORD, 'admin')
})
after(async () => {
  await service.images.jobs.idle()
  await service.close()
})
async function added(path: string, name: string, bytes: Uint8Array, ...options: string[]): Promise<void> {
  await writeFile(path, bytes)
  const said = await run(['image', 'add', path, '--name', name, ...options], { environment: admin })
  assert.equal(said.status, 0, said.err)
}

test('a disk is written, the next version of it moves only what differs, and again nothing', async (t) => {
  const path = await scratch(t)
  await added(path('v1'), 'v1', v1)
  await added(path('v2'), 'v2', v2)
  const to = path('disk')
  const deploy = async (image: string, ...options: string[]) => {
    const said = await run(['deploy', image, '--to', to, '--json', ...options], { environment: admin })
    assert.equal(said.status, 0, said.err)
    return said.json
  }
  const first = await deploy('v1')
  assert.ok((await readFile(to)).equals(v1))
  assert.deepEqual([first.writtenBytes, first.zeroedBytes, first.diskBytes], [8 * MiB + 512, 0, v1.length])
  assert.ok((await stat(to)).blocks * 512 < 9 * MiB, 'the file has the image’s holes')
  const dry = await deploy('v2', '--dry-run')
  assert.deepEqual([dry.writtenBytes, dry.fetchedBytes], [2 * CHUNK, 0])
  assert.ok((await readFile(to)).equals(v1))
  const second = await deploy('v2', '--yes')
  assert.ok((await readFile(to)).equals(v2))
  assert.equal(second.writtenBytes, 2 * CHUNK)
  assert.ok(second.fetchedBytes < 5 * CHUNK, 'the head is written last, and fetched for it')
  const third = await deploy('v2', '--yes')
  assert.deepEqual([third.writtenBytes, third.fetchedBytes, third.verifiedBytes], [0, 0, 0])
})

test('the disk in a qcow2 is written, and people are told what was done', async (t) => {
  const path = await scratch(t)
  const qcow2 = await wrapDisk('qcow2', memorySource(v1.length, [{ offset: 0, bytes: v1 }]))
  await added(path('qcow2'), 'in qcow2', await qcow2.read(0, qcow2.size), '--as-file')
  const said = await run(['deploy', 'in qcow2', '--to', path('disk')], { environment: admin })
  assert.equal(said.status, 0, said.err)
  assert.match(said.out, /^Wrote in qcow2 onto .*: 8\.0 MiB of data and 0 B of zeros, (read back and verified|verified through)/)
  assert.ok((await readFile(path('disk'))).equals(v1))
  const again = await run(['deploy', 'in qcow2', '--to', path('disk'), '--yes'], { environment: admin })
  assert.match(again.out, /nothing was written/)
})

test('what is there is not replaced unasked; what cannot be done is refused by name', async (t) => {
  const path = await scratch(t)
  await added(path('v1'), 'asked', v1)
  await writeFile(path('there'), 'precious')
  const deploy = (...words: string[]) => run(['deploy', ...words], { environment: admin })
  const unasked = await deploy('asked', '--to', path('there'))
  assert.equal(unasked.status, 1)
  assert.match(unasked.err, /--yes|terminal/)
  assert.equal(await readFile(path('there'), 'utf8'), 'precious')
  assert.equal((await deploy('asked')).status, 2)
  assert.equal((await deploy('nothing', '--to', path('x'))).status, 3)
  assert.equal((await deploy('asked', '--to', '/dev/no-such-disk')).status, 3)
  assert.equal((await deploy('asked', '--to', path('absent'), '--dry-run')).status, 3)
  assert.equal((await deploy('asked', '--to', '/proc', '--yes')).status, 1)
  const { exports } = (await run(['export', 'list', '--json'], { environment: admin })).json
  assert.deepEqual(exports, [], 'and no export is left behind')
})

test('what cloud-init shall do lies on the disk, in a partition that the table names; a second run writes nothing', {
  skip: lacking('sfdisk'),
}, async (t) => {
  const path = await scratch(t)
  await writeFile(path('table'), '')
  await truncate(path('table'), 12 * MiB)
  execFileSync('sfdisk', ['--quiet', path('table')], { input: 'label: gpt\nstart=2048, size=8192, name=root\n' })
  await added(path('gpt'), 'with a table', await readFile(path('table')))
  await writeFile(path('user-data'), '#cloud-config\nhostname: web\n')
  await writeFile(path('disk'), '')
  await truncate(path('disk'), 20 * MiB)
  const words = ['deploy', 'with a table', '--to', path('disk'), '--yes', '--user-data', path('user-data')]
  const said = await run([...words, '--json'], { environment: admin })
  assert.equal(said.status, 0, said.err)
  assert.match(said.json.partitionTable, /cidata/)
  const { partitiontable } = JSON.parse(execFileSync('sfdisk', ['--json', path('disk')], { encoding: 'utf8' }))
  assert.deepEqual(
    partitiontable.partitions.map(({ name }: { name: string }) => name),
    ['root', 'cidata'],
  )
  assert.ok((await readFile(path('disk'))).includes('#cloud-config\nhostname: web\n'))
  const again = await run([...words, '--json'], { environment: admin })
  assert.deepEqual([again.json.writtenBytes, again.json.zeroedBytes], [0, 0])
  const other = ['deploy', 'with a table', '--to', path('disk'), '--yes', '--no-grow', '--user-data', path('user-data')]
  assert.equal((await run(other, { environment: admin })).status, 2)
})

const root = process.getuid?.() === 0 ? lacking('losetup') : 'needs root'
test('an image for other servers is refused, with what would fit; --force-model writes it', { skip: root }, async (t) => {
  const path = await scratch(t)
  await added(path('v1'), 'for others', v1, '--property', 'server_models=HPE/ProLiant*')
  await mkdir(path('class/dmi/id'), { recursive: true })
  await writeFile(path('class/dmi/id/sys_vendor'), 'Dell Inc.\n')
  await writeFile(path('class/dmi/id/product_name'), 'PowerEdge R740\n')
  await writeFile(path('medium'), Buffer.alloc(16 * MiB))
  const device = execFileSync('losetup', ['--find', '--show', path('medium')], { encoding: 'utf8' }).trim()
  t.after(() => execFileSync('losetup', ['--detach', device]))
  const words = ['deploy', 'for others', '--to', device, '--yes']
  const environment = { ...admin, IMPRINT_SYS: path('') }
  const refused = await run(words, { environment })
  assert.equal(refused.status, 5)
  assert.match(refused.err, /made for HPE\/ProLiant\* .*Dell Inc\. PowerEdge R740.*--force-model/)
  assert.ok((await readFile(path('medium'))).every((byte) => byte === 0))
  const forced = await run([...words, '--force-model', '--json'], { environment })
  assert.equal(forced.status, 0, forced.err)
  assert.equal(forced.json.readsMedium, true)
  assert.ok((await readFile(path('medium'))).subarray(0, v1.length).equals(v1))
})
