/** Machines of QEMU with a real guest: what the conformance suite of hypervisors cannot ask of every adapter. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, watch } from 'node:fs'
import { mkdir, open, readdir, readFile, readlink, rmdir, stat, writeFile } from 'node:fs/promises'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { ServiceError } from '../../src/base/errors.ts'
import { GiB, MiB } from '../../src/base/units.ts'
import { stacked } from '../../src/instances/hypervisor/disk-layers.suite.ts'
import { until, untilPrinted } from '../../src/instances/hypervisor/hypervisor.suite.ts'
import type { Hardware, Hypervisor, MachineSpec } from '../../src/instances/hypervisor/hypervisor.ts'
import { QemuHypervisor, type QemuOptions } from '../../src/instances/hypervisor/qemu/qemu-hypervisor.ts'
import { ask, type MachineHost, machineHost } from '../fixtures/guest/machine-host.ts'
import { noTinyGuest, tinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { command, missingTool, must } from '../peers/command.ts'
import { freePort } from '../peers/daemon.ts'

const skip = noTinyGuest()
const noMount = process.getuid?.() === 0 ? missingTool('mount') : 'mounting a small file system takes root'
const GRACE_MS = 120_000
/** Of the hypervisor, not of a machine. */
const ITS_SOCKET = 'migration.sock'

async function opened(context: TestContext, options: Partial<QemuOptions> = {}): Promise<[MachineHost, QemuHypervisor]> {
  const host = await machineHost(options)
  const hypervisor = await host.open().catch(async (error) => {
    await host.close()
    throw error
  })
  context.after(async () => {
    await hypervisor.close()
    await host.close()
  })
  return [host, hypervisor]
}
const consoleOf = async (hypervisor: Hypervisor, id: string) =>
  Buffer.from(await hypervisor.consoleLog(id, MiB))
    .toString('utf8')
    .replaceAll('\r', '')
const forwarding = (hostPort: number) => ({
  mac: '52:54:00:12:34:56',
  forwards: [{ protocol: 'tcp', hostAddress: '127.0.0.1', hostPort, guestPort: 80 }] as const,
})
const seed = (userData: string) => ({
  metaData: JSON.stringify({ 'instance-id': 'i-1' }),
  userData: Buffer.from(userData),
  networkConfig: null,
  vendorData: null,
})

test('a guest starts from NBD, keeps what it writes, and finds its name, its seed and its port', { skip }, async (context) => {
  const [host, hypervisor] = await opened(context)
  const port = await freePort()
  const name = `web, "1" 🐧\n${'x'.repeat(80)}`
  const spec = host.spec({
    name,
    cpus: 2,
    disks: [{ name: 'root', bytes: 10 * GiB, serial: 'a-serial', base: host.base }],
    networks: [forwarding(port)],
    seed: seed('#!/bin/sh\necho user data ran\n'),
  })
  await hypervisor.launch(spec)
  assert.ok((await hypervisor.show(spec.id)).diskBytes <= 1_000_000, 'a machine costs no more before it writes')
  const commandLine = await readFile(`/proc/${await host.pid(spec.id)}/cmdline`, 'utf8')
  assert.ok(!commandLine.includes(host.base.exportName.slice(5)), 'the export is a secret')

  await untilPrinted(hypervisor, spec.id, 'ready')
  const shown = [...name.replaceAll('\n', ' ')].slice(0, 64).join('')
  const said = await consoleOf(hypervisor, spec.id)
  assert.ok(said.includes(`guest boots=1 instance=i-1 uuid=${spec.id} cpus=2 name=${shown}\n`), said)
  assert.match(said, /^user data ran$/m)
  assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), 'hello from the guest\n')
  assert.equal(
    await ask(hypervisor, spec.id, 'cat /sys/block/vda/serial; echo; cat /sys/block/vda/size'),
    `a-serial\n${(10 * GiB) / 512}`,
  )
  await ask(hypervisor, spec.id, 'echo kept > /disk/kept; sync')

  await hypervisor.reboot(spec.id, GRACE_MS)
  await untilPrinted(hypervisor, spec.id, 'boots=2')
  await untilPrinted(hypervisor, spec.id, 'ready', 2)
  await hypervisor.stop(spec.id, GRACE_MS)
  await must(['qemu-img', 'check', '-f', 'qcow2', join(host.folder, spec.id, 'run', 'disk-root.0.qcow2')])

  const moved = await host.moveDisk()
  await assert.rejects(hypervisor.start(spec.id), { code: 'unavailable' })
  assert.equal((await hypervisor.show(spec.id)).power, 'shutdown')
  await hypervisor.start(spec.id, { addresses: { root: moved } })
  await untilPrinted(hypervisor, spec.id, 'ready', 3)
  assert.equal(await ask(hypervisor, spec.id, 'cat /disk/kept'), 'kept')
})

for (const machineType of ['pc', 'q35']) {
  test(`the root disk is the first one that a guest of type ${machineType} finds, and the seed the last`, {
    skip,
  }, async (context) => {
    const [host, hypervisor] = await opened(context)
    const hardware = { ...host.spec().hardware, machineType }
    const disks = [
      { name: 'root', bytes: GiB, serial: 'the-root', base: host.base },
      { name: 'more', bytes: 64 * MiB, serial: 'one-more' },
    ]
    const spec = host.spec({ hardware, disks, seed: seed('') })
    await hypervisor.launch(spec)
    await untilPrinted(hypervisor, spec.id, 'ready')
    const serials =
      'for disk in a b; do cat /sys/block/vd$disk/serial; echo; done; dd if=/dev/vdc bs=1 skip=32808 count=6 2>/dev/null'
    assert.equal(await ask(hypervisor, spec.id, serials), 'the-root\none-more\ncidata')
  })
}

test('an isolated guest reaches nobody, not this host either, and is reached by its ports', { skip }, async (context) => {
  const [host, hypervisor] = await opened(context)
  const local = createHttpServer((_, answer) => answer.end('for the host alone')).listen(0, '127.0.0.1')
  await once(local, 'listening')
  context.after(() => local.close())
  const { port: localPort } = local.address() as AddressInfo
  const fetched = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 10.0.2.2 ${localPort} || echo refused`
  for (const [isIsolated, answer] of [
    [false, 'for the host alone'], // so that the other answer means something
    [true, 'refused'],
  ] as const) {
    const port = await freePort()
    const spec = host.spec({ networks: [{ ...forwarding(port), isIsolated }] })
    await hypervisor.launch(spec)
    await untilPrinted(hypervisor, spec.id, 'ready')
    assert.match(await ask(hypervisor, spec.id, fetched), new RegExp(`${answer}$`))
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), 'hello from the guest\n')
    await hypervisor.remove(spec.id)
  }
})

test('a guest goes on when the service that serves its disk was away', { skip }, async (context) => {
  const [host, hypervisor] = await opened(context)
  const spec = host.spec()
  await hypervisor.launch(spec)
  await untilPrinted(hypervisor, spec.id, 'ready')
  await host.stopServing()
  const missed = someoneConnects(host.base.socketPath)
  const read = ask(
    hypervisor,
    spec.id,
    'echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=1M skip=24 count=8 2>/dev/null | sha256sum',
  )
  await missed // a read met the outage: QEMU looks for the service again
  await host.serveDisk()
  const file = await open(await tinyGuest())
  const { buffer } = await file.read(Buffer.alloc(8 * MiB), 0, 8 * MiB, 24 * MiB)
  await file.close()
  assert.equal((await read).split(' ')[0], createHash('sha256').update(buffer).digest('hex'))
})

/** Settles when a client came to the socket, and was sent away. */
async function someoneConnects(socketPath: string): Promise<void> {
  const server = createServer((socket) => socket.destroy()).listen(socketPath)
  await once(server, 'connection')
  server.close()
  await once(server, 'close')
}

const controllers: readonly (readonly [Hardware['diskBus'], Hardware['networkModel'], RegExp])[] = [
  ['scsi', 'e1000', /boots=1 instance=i-1/],
  ['ide', 'rtl8139', /boots=1 instance=i-1/],
  ['sata', 'e1000e', /boots=none/], // its BIOS started it from there; Debian's cloud kernel has no driver for the rest
]
for (const [diskBus, networkModel, says] of controllers) {
  test(`a guest starts from ${diskBus}, with a card of type ${networkModel}`, { skip }, async (context) => {
    const [host, hypervisor] = await opened(context)
    const hardware = { ...host.spec().hardware, diskBus, networkModel, qemuGuestAgent: true }
    const spec = host.spec({ hardware, networks: [forwarding(await freePort())], seed: seed('') })
    await hypervisor.launch(spec)
    await untilPrinted(hypervisor, spec.id, 'ready')
    assert.match(await consoleOf(hypervisor, spec.id), says)
  })
}

const noFirmware = skip || (existsSync('/usr/share/qemu/firmware') ? false : 'ovmf is not installed')
test('a machine starts by UEFI, with variables of its own', { skip: noFirmware }, async (context) => {
  const [host, hypervisor] = await opened(context)
  assert.ok(hypervisor.abilities.firmwares.includes('uefi') && hypervisor.abilities.secureBoot)
  for (const secureBoot of [false, true]) {
    const spec = host.spec({ hardware: { ...host.spec().hardware, firmware: 'uefi', secureBoot } })
    await hypervisor.launch(spec)
    assert.ok((await hypervisor.show(spec.id)).diskBytes <= 1_000_000)
    await untilPrinted(hypervisor, spec.id, 'BdsDxe') // the firmware looks for what to start
    await hypervisor.remove(spec.id)
  }
})

test('without firmware for UEFI there is none among the abilities', { skip }, async (context) => {
  const [host, hypervisor] = await opened(context, { firmwareFolders: [] })
  assert.deepEqual(hypervisor.abilities.firmwares, ['bios'])
  assert.equal(hypervisor.abilities.secureBoot, false)
  const spec = host.spec({ hardware: { ...host.spec().hardware, firmware: 'uefi' } })
  await assert.rejects(hypervisor.launch(spec), {
    code: 'invalid-request',
    message: /needs uefi firmware, and this host has bios/,
  })
})

test('what does not start says why, in words without secrets, and leaves nothing', { skip }, async (context) => {
  const [host, hypervisor] = await opened(context)
  const withBase = (base: typeof host.base) => host.spec({ disks: [{ name: 'root', bytes: GiB, serial: '', base }] })
  const exportName = `gone-${randomUUID()}`
  await assert.rejects(hypervisor.launch(withBase({ ...host.base, exportName })), (error: Error & { code: string }) => {
    assert.equal(error.code, 'unavailable')
    assert.match(error.message, /export/)
    assert.ok(!error.message.includes(exportName))
    return true
  })
  await assert.rejects(hypervisor.launch(withBase({ ...host.base, socketPath: `${host.base.socketPath}.not` })), {
    code: 'unavailable',
    message: /Failed to connect to '\(socket of root\)'/,
  })
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  context.after(() => taken.close())
  const { port } = taken.address() as { port: number }
  await assert.rejects(hypervisor.launch(host.spec({ networks: [forwarding(port)] })), {
    code: 'conflict',
    message: new RegExp(`tcp:127.0.0.1:${port} of the host is taken`),
  })
  await assert.rejects(hypervisor.launch(host.spec({ memoryBytes: 2 ** 50 })), { code: 'unavailable', message: /memory/i })
  assert.deepEqual(await hypervisor.list(), [])
  assert.deepEqual(await readdir(host.folder), [ITS_SOCKET])
  assert.deepEqual(await processesIn(host.folder), [])
})

test('firmware that is none says why', { skip }, async (context) => {
  const host = await machineHost()
  context.after(() => host.close())
  const folder = join(host.folder, 'firmware')
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, 'garbage'), 'x')
  const file = { filename: join(folder, 'garbage'), format: 'raw' }
  const mapping = { device: 'flash', executable: file, 'nvram-template': file }
  const targets = [{ architecture: 'x86_64', machines: ['pc-q35-*'] }]
  await writeFile(join(folder, '1.json'), JSON.stringify({ mapping, targets, features: [] }))
  const options: QemuOptions = { folder: host.folder, accelerator: 'tcg', firmwareFolders: [folder], onProblem: () => {} }
  const hypervisor = await QemuHypervisor.open(options)
  context.after(() => hypervisor.close())
  const spec = host.spec({ hardware: { ...host.spec().hardware, firmware: 'uefi' } })
  await assert.rejects(hypervisor.launch(spec), { code: 'unavailable', message: /does not start.*(size|bytes|pflash)/ })
  await assert.rejects(QemuHypervisor.open({ ...options, program: 'qemu-system-none' }), {
    code: 'unavailable',
    message: /install QEMU/,
  })
  await assert.rejects(QemuHypervisor.open({ ...options, folder: `/tmp/${'x'.repeat(100)}` }), { code: 'invalid-request' })
})

test('where there is no room a launch says so, and leaves nothing', { skip: skip || noMount }, async (context) => {
  const host = await machineHost()
  context.after(() => host.close())
  await mkdir(host.folder, { mode: 0o700 })
  const mounted = await command(['mount', '-t', 'tmpfs', '-o', 'size=200k', 'imprint-test', host.folder])
  if (mounted.code !== 0) return context.skip(`no file system can be mounted here: ${mounted.stderr.trim()}`)
  const hypervisor = await host.open()
  try {
    await assert.rejects(hypervisor.launch(host.spec()), { code: 'no-space' })
    assert.deepEqual(await hypervisor.list(), [])
    assert.deepEqual(await readdir(host.folder), [ITS_SOCKET])
  } finally {
    await hypervisor.close()
    await must(['umount', host.folder])
  }
})

test('ten start at once', { skip }, async (context) => {
  const [host, hypervisor] = await opened(context)
  const specs = Array.from({ length: 10 }, (_, index) => host.spec({ name: `tiny-${index}` }))
  await Promise.all(specs.map((spec) => hypervisor.launch(spec)))
  const found = await hypervisor.list()
  assert.equal(found.length, 10)
  for (const { diskBytes } of found) assert.ok(diskBytes <= 1_000_000)
  await Promise.all(specs.map((spec) => untilPrinted(hypervisor, spec.id, 'ready')))
  await Promise.all(specs.map((spec) => hypervisor.stop(spec.id, GRACE_MS)))
})

test('a guest that floods its console costs bounded space', { skip }, async (context) => {
  const [host, hypervisor] = await opened(context)
  const spec = host.spec()
  await hypervisor.launch(spec)
  await untilPrinted(hypervisor, spec.id, 'ready')
  const log = join(host.folder, spec.id, 'run', 'console.log')
  const cut = (async () => {
    let before = 0
    for (;;) {
      const { size } = await stat(log)
      if (size < before) return
      before = size
      await pause(20)
    }
  })()
  const serial = await hypervisor.serial(spec.id)
  serial.resume()
  serial.write('yes 0123456789012345678901234567890123456789012345678901234567890123456789\n')
  await cut
  assert.equal((await hypervisor.consoleLog(spec.id, MiB)).length, MiB)
})

/** What a database brings along: told before its file system stands still, and after. */
const HOOK = `cd /agent/fsfreeze-hook.d; echo '#!/bin/sh' > ledger; echo 'echo $1 >> /data/ledger' >> ledger; chmod +x ledger`
const noAgent = skip || missingTool('ldd', 'e2fsck')
test("Debian's agent makes file systems stand still for a snapshot, and they are whole in it", {
  skip: noAgent,
}, async (context) => {
  const host = await machineHost({}, { agent: true })
  const hypervisor = await host.open()
  context.after(async () => {
    await hypervisor.close()
    await host.close()
  })
  const [root] = host.spec().disks
  const data = { name: 'data', bytes: 64 * MiB, serial: '' }
  const spec = host.spec({ hardware: { ...host.spec().hardware, qemuGuestAgent: true }, disks: [root!, data] })
  await hypervisor.launch(spec)
  await untilPrinted(hypervisor, spec.id, 'ready')
  await ask(hypervisor, spec.id, 'mke2fs /dev/vdb >/dev/null; mkdir /data; mount -t ext4 /dev/vdb /data')
  await ask(hypervisor, spec.id, 'while :; do for i in 1 2 3 4 5 6 7 8 9; do echo $i > /data/$i; done; done & sync')

  const sealed = await hypervisor.seal(spec.id, GRACE_MS)
  assert.deepEqual([sealed.consistency, sealed.evidence], ['file-system', "the guest's agent froze 1 file systems"])
  assert.equal(await ask(hypervisor, spec.id, 'echo on > /data/after && sync && cat /data/after'), 'on')

  await ask(hypervisor, spec.id, HOOK)
  const { consistency, evidence } = await hypervisor.seal(spec.id, GRACE_MS)
  assert.deepEqual([consistency, evidence], ['application', "the guest's agent froze 1 file systems, after it had told ledger"])
  assert.equal(await ask(hypervisor, spec.id, 'cat /data/ledger'), 'freeze\nthaw')

  const layer = await hypervisor.openLayer(spec.id, 'data', sealed.layers.data![0]!)
  const image = join(host.folder, 'data.raw')
  await writeFile(image, await layer.read(0, layer.size))
  await layer.close()
  await must(['e2fsck', '-f', '-n', image])
})

test('a guest that a killed service left standing goes on when it is found', { skip: noAgent }, async (context) => {
  const host = await machineHost({}, { agent: true })
  const { hardware, disks } = host.spec()
  const data = { name: 'data', bytes: 64 * MiB, serial: '' }
  const spec = host.spec({ hardware: { ...hardware, qemuGuestAgent: true }, disks: [...disks, data] })
  const first = await host.open()
  await first.launch(spec)
  await untilPrinted(first, spec.id, 'ready')
  await ask(first, spec.id, 'mke2fs /dev/vdb >/dev/null; mkdir /data; mount -t ext4 /dev/vdb /data')
  await first.close()
  const child = fixture('seal.ts', [host.folder, spec.id, String(GRACE_MS)], { IMPRINT_FAILPOINT: 'machine:frozen' })
  assert.deepEqual(await once(child, 'exit'), [null, 'SIGKILL'])
  assert.ok(existsSync(join(host.folder, spec.id, 'frozen')))
  const again = await host.open()
  context.after(async () => {
    await again.close()
    await host.close()
  })
  assert.equal(await ask(again, spec.id, 'echo on > /data/after && sync && cat /data/after'), 'on')
  assert.ok(!existsSync(join(host.folder, spec.id, 'frozen')))
})

test('a guest that stands still for its disks goes on when the service that wanted it so was killed', {
  skip,
}, async (context) => {
  const host = await machineHost()
  const spec = host.spec()
  let hypervisor = await host.open()
  context.after(async () => {
    await hypervisor.close()
    await host.close()
  })
  await hypervisor.launch(spec)
  await untilPrinted(hypervisor, spec.id, 'ready')
  for (const step of ['machine:still', 'machine:sealed-still'] as const) {
    await hypervisor.close()
    const child = fixture('seal.ts', [host.folder, spec.id, '0', 'still'], { IMPRINT_FAILPOINT: step })
    assert.deepEqual(await once(child, 'exit'), [null, 'SIGKILL'])
    hypervisor = await host.open()
    assert.equal((await hypervisor.show(spec.id)).power, 'running', step)
    await host.write(hypervisor, spec.id, 512 * MiB, Buffer.alloc(512, step))
    const { layers } = await hypervisor.seal(spec.id, 0, { whileStill: async () => {} })
    const layer = await hypervisor.openLayer(spec.id, 'root', layers.root!.at(-1)!)
    assert.deepEqual(Buffer.from(await layer.read(512 * MiB, 512)), Buffer.alloc(512, step))
    await layer.close()
  }
})

test('a machine whose record cannot be read is told of, and can be removed with its process', { skip }, async (context) => {
  const host = await machineHost()
  context.after(() => host.close())
  const spec = host.spec()
  const first = await host.open()
  await first.launch(spec)
  await first.close()
  const record = join(host.folder, spec.id, 'machine.json')
  const before = await readFile(record)
  await writeFile(record, before.subarray(0, 100))
  const problems: unknown[] = []
  const again = await QemuHypervisor.open({
    folder: host.folder,
    accelerator: 'tcg',
    onProblem: (error) => void problems.push(error),
  })
  context.after(() => again.close())
  assert.equal((problems[0] as { code?: string }).code, 'corrupt')
  await assert.rejects(again.show(spec.id), { code: 'corrupt' })
  await assert.rejects(again.start(spec.id), { code: 'corrupt' })
  await assert.rejects(again.launch(spec), { code: 'conflict' })
  const [listed] = await again.list()
  assert.deepEqual([listed?.id, listed?.power], [spec.id, 'crashed'])
  assert.match(listed?.reason ?? '', /cannot be read/)
  assert.equal((await processesIn(join(host.folder, spec.id))).length, 1)
  await again.remove(spec.id)
  assert.deepEqual(await processesIn(host.folder), [])
  assert.deepEqual(await again.list(), [])
  assert.ok(!existsSync(join(host.folder, spec.id)))
})

const isRoot = process.getuid?.() === 0
test('QEMU runs as another user where the service is root', { skip: skip || (!isRoot && 'only root can') }, async (context) => {
  const nobody = { uid: 65534, gid: 65534 }
  const [host, hypervisor] = await opened(context, { user: nobody })
  const spec = host.spec({ seed: seed('') })
  await hypervisor.launch(spec)
  const status = await readFile(`/proc/${await host.pid(spec.id)}/status`, 'utf8')
  assert.match(status, /^Uid:\t65534\t65534\t65534\t65534$/m)
  assert.match(status, /^Groups:\t?\s*$/m)
  assert.match(status, /^CapPrm:\t0+$/m)
  assert.match(status, /^Seccomp:\t2$/m)
  await hypervisor.stop(spec.id, 0)
  await hypervisor.start(spec.id)
  assert.equal((await hypervisor.show(spec.id)).power, 'running')
})

const unified = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find((path) => existsSync(join(path, 'cgroup.procs')))
const noCgroup = skip || (!isRoot && 'only root can') || (!unified && 'there are no control groups of version 2')
test('each machine has a control group of its own, with bounds, while it runs', { skip: noCgroup }, async (context) => {
  const cgroup = join(unified!, `imprint-test-${randomUUID()}`)
  await mkdir(cgroup)
  context.after(() => rmdir(cgroup))
  const controllers = (await readFile(join(cgroup, 'cgroup.controllers'), 'utf8')).trim().split(' ')
  const wanted = ['memory', 'cpu', 'pids'].filter((each) => controllers.includes(each))
  await writeFile(join(cgroup, 'cgroup.subtree_control'), wanted.map((each) => `+${each}`).join(' '))
  const host = await machineHost({ cgroup })
  const hypervisor = await host.open()
  try {
    const spec = host.spec({ cpus: 2 })
    await hypervisor.launch(spec)
    const own = join(cgroup, spec.id)
    assert.equal((await readFile(join(own, 'cgroup.procs'), 'utf8')).trim(), String(await host.pid(spec.id)))
    const limits = { memory: `${(128 + 1536) * MiB}`, cpu: '300000 100000', pids: '258' } as const
    for (const [controller, limit] of Object.entries(limits)) {
      if (wanted.includes(controller)) assert.equal((await readFile(join(own, `${controller}.max`), 'utf8')).trim(), limit)
    }
    await hypervisor.stop(spec.id, 0)
    assert.ok(!existsSync(own))
    await hypervisor.start(spec.id)
    assert.ok(existsSync(own))
    await hypervisor.remove(spec.id)
    assert.ok(!existsSync(own))
  } finally {
    await hypervisor.close()
    await host.close()
  }
})

test('a control group that is none keeps a machine from starting', { skip }, async (context) => {
  const [host, hypervisor] = await opened(context, { cgroup: '/proc/self' })
  await assert.rejects(hypervisor.launch(host.spec()), { code: 'unavailable', message: /cannot be confined/ })
  assert.deepEqual(await hypervisor.list(), [])
  assert.deepEqual(await processesIn(host.folder), [])
})

/** What shows in the folder of machines when a launch has come that far. */
const moments: readonly (readonly [string, (id: string) => string])[] = [
  ['makes its folder', (id) => id],
  ['writes its record', (id) => join(id, 'machine.json')],
  ['starts its process', (id) => join(id, 'process')],
  ['waits for the monitor', (id) => join(id, 'run', 'qmp.sock')],
]
for (const [moment, shows] of moments) {
  test(`a service that is killed when a launch ${moment} leaves a machine that is found, or nothing`, {
    skip,
  }, async (context) => {
    const host = await machineHost()
    context.after(() => host.close())
    await mkdir(host.folder, { mode: 0o700 })
    for (let round = 0; round < 3; round += 1) {
      const spec = host.spec()
      await killedWhen(host.folder, spec, shows(spec.id))
      await assertFoundOrGone(host, spec.id)
    }
  })
}

test('a launch that was answered is found after the service was killed', { skip }, async (context) => {
  const host = await machineHost()
  context.after(() => host.close())
  const spec = host.spec()
  await killedWhen(host.folder, spec, 'launched')
  const hypervisor = await host.open()
  context.after(() => hypervisor.close())
  assert.equal((await hypervisor.show(spec.id)).power, 'running')
  const told = until(hypervisor, spec.id, 'crashed')
  await host.kill(spec.id)
  assert.equal((await told).reason, 'QEMU ended without a word')
})

test('a service that is killed as it seals disks leaves the machine running, with all layers that it knows', {
  skip,
}, async (context) => {
  const host = await machineHost()
  context.after(() => host.close())
  const spec = host.spec()
  const first = await host.open()
  await first.launch(spec)
  await first.close()
  for (let layer = 1; layer <= 9; layer += 2) {
    await killedAsIt('seal.ts', [host.folder, spec.id], host.folder, join(spec.id, 'run', `disk-root.${layer}.qcow2`))
    const hypervisor = await host.open()
    assert.equal((await hypervisor.show(spec.id)).power, 'running')
    const { root = [] } = (await hypervisor.seal(spec.id, 0)).layers
    for (const number of root) await (await hypervisor.openLayer(spec.id, 'root', number)).close()
    layer = Math.max(layer, ...root)
    await hypervisor.close()
  }
  const last = await host.open()
  await last.stop(spec.id, 0)
  await last.start(spec.id)
  await untilPrinted(last, spec.id, 'ready')
  await last.close()
})

test('a service that is killed as it rebases a disk loses nothing, and leaves no file when it was asked again', {
  skip,
}, async (context) => {
  const host = await machineHost()
  const { id } = host.spec()
  const [OFFSET, sector] = [512 * MiB, (fill: string) => Buffer.alloc(512, fill)]
  let hypervisor = await host.open()
  context.after(async () => {
    await hypervisor.close()
    await host.close()
  })
  await hypervisor.launch(host.spec({ id }))
  await untilPrinted(hypervisor, id, 'ready')
  let disk = await host.openBase()
  for (const [through, step] of (['machine:on-base', 'machine:base-recorded', 'machine:layers-unused'] as const).entries()) {
    await host.write(hypervisor, id, OFFSET, sector(String(through)))
    await hypervisor.seal(id, 0)
    // what the guest wrote is in the base then, and in no layer that stays: what loses the base reads something else
    disk = stacked([disk, await hypervisor.openLayer(id, 'root', through)])
    const base = await host.lend(disk)
    await hypervisor.close()
    const child = fixture('rebase.ts', [host.folder, id, JSON.stringify({ base, through })], { IMPRINT_FAILPOINT: step })
    assert.deepEqual(await once(child, 'exit'), [null, 'SIGKILL'])

    hypervisor = await host.open()
    assert.equal((await hypervisor.show(id)).power, 'running', step)
    assert.deepEqual(Buffer.from(await host.read(hypervisor, id, OFFSET, 512)), sector(String(through)), step)
    await hypervisor.rebase(id, { root: { base, through } })
    assert.deepEqual(Buffer.from(await host.read(hypervisor, id, OFFSET, 512)), sector(String(through)), step)
    const layers = (await readdir(join(host.folder, id, 'run'))).filter((name) => name.endsWith('.qcow2'))
    assert.deepEqual(layers, [`disk-root.${through + 1}.qcow2`], step)
  }
  await hypervisor.stop(id, 0)
  await hypervisor.start(id)
  await untilPrinted(hypervisor, id, 'ready', 2)
})

test('a service that is killed as it makes a disk whole loses nothing, and finishes when it was asked again', {
  skip,
}, async (context) => {
  const host = await machineHost()
  context.after(() => host.close())
  for (const step of ['machine:streaming', 'machine:streamed', 'machine:layers-unused'] as const) {
    const { id } = host.spec()
    const base = await host.lend(await host.openBase())
    const first = await host.open()
    await first.launch(host.spec({ id, disks: [{ name: 'root', bytes: GiB, serial: '', base }] }))
    await untilPrinted(first, id, 'ready')
    await first.close()
    const child = fixture('hydrate.ts', [host.folder, id], { IMPRINT_FAILPOINT: step })
    assert.deepEqual(await once(child, 'exit'), [null, 'SIGKILL'])

    const hypervisor = await host.open()
    assert.equal((await hypervisor.show(id)).power, 'running', step)
    assert.equal(await ask(hypervisor, id, 'cat /disk/boots'), '1')
    assert.equal((await hypervisor.seal(id, 0)).layers.root!.length, 1, step)
    await hypervisor.hydrate(id, 'root')
    await host.endLoan(base)
    const layers = (await readdir(join(host.folder, id, 'run'))).filter((name) => name.endsWith('.qcow2'))
    assert.deepEqual(layers, ['disk-root.1.qcow2'], step)
    await hypervisor.stop(id, 0)
    await hypervisor.start(id)
    await untilPrinted(hypervisor, id, 'boots=2')
    await hypervisor.remove(id)
    await hypervisor.close()
  }
})

test('a service that is killed as it attaches or detaches a disk leaves it attached or not, and nothing of it half', {
  skip,
}, async (context) => {
  const host = await machineHost()
  const { id } = host.spec()
  let hypervisor = await host.open()
  context.after(async () => {
    await hypervisor.close()
    await host.close()
  })
  await hypervisor.launch(host.spec({ id }))
  await untilPrinted(hypervisor, id, 'ready')
  const disk = { name: 'data', bytes: 64 * MiB, serial: 'the-data' }
  const isRecorded = async () => 'data' in (await hypervisor.seal(id, 0)).layers
  const killed = async (step: string, ...args: readonly string[]) => {
    await hypervisor.close()
    const child = fixture('plug.ts', [host.folder, id, ...args], { IMPRINT_FAILPOINT: step })
    assert.deepEqual(await once(child, 'exit'), [null, 'SIGKILL'])
    hypervisor = await host.open()
    assert.equal((await hypervisor.show(id)).power, 'running', step)
  }
  await killed('machine:disk-recorded', 'attach', JSON.stringify(disk))
  assert.equal(await isRecorded(), false)
  await host.untilSeen(hypervisor, id, 'the-data', false)
  await killed('machine:disk-plugged', 'attach', JSON.stringify(disk))
  assert.equal(await isRecorded(), true)
  await host.untilSeen(hypervisor, id, 'the-data', true)
  await host.write(hypervisor, id, 0, Buffer.alloc(512, 'a'), 'the-data')

  await killed('machine:disk-going', 'detach', 'data')
  assert.equal(await isRecorded(), true)
  assert.deepEqual(Buffer.from(await host.read(hypervisor, id, 0, 512, 'the-data')), Buffer.alloc(512, 'a'))
  await killed('machine:disk-unplugged', 'detach', 'data')
  assert.equal(await isRecorded(), false)
  await host.untilSeen(hypervisor, id, 'the-data', false)
  const files = (await readdir(join(host.folder, id, 'run'))).filter((name) => name.startsWith('disk-data.'))
  assert.deepEqual(files, [])
  await hypervisor.attach(id, disk)
  await host.untilSeen(hypervisor, id, 'the-data', true)
})

test('a guest whose store has no room stands still until there is some, and of other failures it is told', {
  skip,
}, async (context) => {
  const [host, hypervisor] = await opened(context)
  const { id } = host.spec()
  await hypervisor.launch(host.spec({ id }))
  await untilPrinted(hypervisor, id, 'ready')
  const { address, source, failWith } = await host.makeStore(64 * MiB)
  await hypervisor.attach(id, { name: 'data', bytes: 64 * MiB, serial: 'the-data', store: address })
  await host.untilSeen(hypervisor, id, 'the-data', true)

  failWith(new ServiceError('no-space', 'the store is full'))
  const stands = until(hypervisor, id, 'paused')
  const written = host.write(hypervisor, id, 0, Buffer.alloc(512, 'a'), 'the-data')
  assert.match((await stands).reason ?? '', /no room.*"data"/)
  failWith(null)
  await hypervisor.resume(id)
  await written
  assert.deepEqual(Buffer.from(await source.read(0, 512)), Buffer.alloc(512, 'a'))
  assert.deepEqual([(await hypervisor.show(id)).power, (await hypervisor.show(id)).reason], ['running', null])

  failWith(new ServiceError('corrupt', 'the store is broken'))
  const device = await ask(
    hypervisor,
    id,
    'for d in $(ls /sys/block); do [ "$(cat /sys/block/$d/serial 2>/dev/null)" = the-data ] && echo $d; done',
  )
  assert.match(
    await ask(hypervisor, id, `dd if=/dev/zero of=/dev/${device} bs=512 count=1 conv=fsync 2>&1`),
    /(I\/O|Input\/output) error/i,
  )
  assert.equal((await hypervisor.show(id)).power, 'running')
})

/** Runs a service that launches the machine, and kills it when `sign` is there: a file below the folder, or the word `launched`. */
async function killedWhen(folder: string, spec: MachineSpec, sign: string): Promise<void> {
  await killedAsIt('launch.ts', [folder, JSON.stringify(spec)], folder, sign)
}

async function killedAsIt(script: string, args: readonly string[], folder: string, sign: string): Promise<void> {
  const child = fixture(script, args)
  const ended = once(child, 'exit')
  const kill = () => child.kill('SIGKILL')
  for await (const line of createInterface({ input: child.stdout })) {
    if (line === 'open' && sign !== 'launched') whenThere(folder, sign, kill)
    if (line === 'launched') kill()
  }
  await ended
}

function fixture(script: string, args: readonly string[], environment: Readonly<Record<string, string>> = {}) {
  const path = new URL(`../fixtures/guest/${script}`, import.meta.url).pathname
  const env = { ...process.env, ...environment }
  return spawn(process.execPath, [path, ...args], { stdio: ['ignore', 'pipe', 'inherit'], env })
}

/** Looks at once, and at each change: the moment is a matter of microseconds. */
function whenThere(folder: string, name: string, then: () => void): void {
  const watchers = [watch(folder, look)]
  function look() {
    const parent = join(folder, name.split('/')[0]!)
    if (watchers.length < 2 && name.includes('/') && existsSync(parent)) watchers.push(watch(parent, look))
    const run = join(parent, 'run')
    if (watchers.length < 3 && name.includes('/run/') && existsSync(run)) watchers.push(watch(run, look))
    if (!existsSync(join(folder, name))) return
    for (const watcher of watchers) watcher.close()
    then()
  }
  look()
}

async function assertFoundOrGone(host: MachineHost, id: string): Promise<void> {
  const hypervisor = await host.open()
  try {
    const found = await hypervisor.list()
    const running = found.filter((machine) => machine.id === id)
    if (running.length > 0) assert.equal(running[0]!.power, 'running')
    else assert.ok(!existsSync(join(host.folder, id)))
    assert.equal((await processesIn(join(host.folder, id))).length, running.length)
    await hypervisor.remove(id)
    assert.deepEqual(await processesIn(join(host.folder, id)), [])
  } finally {
    await hypervisor.close()
  }
}

/** Ids of processes that work in a folder, deleted or not. */
async function processesIn(folder: string): Promise<readonly string[]> {
  const ids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const inside: string[] = []
  for (const id of ids) {
    const cwd = await readlink(`/proc/${id}/cwd`).catch(() => '')
    if (cwd.startsWith(`${folder}/`)) inside.push(id)
  }
  return inside
}
