/** A blank machine of QEMU's starts from the network, is written with an image by the service, and starts from its disk. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readFile, truncate, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { after, before, type TestContext, test } from 'node:test'
import { ImageRequests } from '../durability/image-requests.ts'
import { adminToken, folderInMemory, type MortalService, removeFolder, startMortal } from '../durability/mortal-service.ts'
import { scratch } from '../fixtures/disk/tools.ts'
import { noTinyGuest, tinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { missingTool, must } from '../peers/command.ts'

const MiB = 1024 * 1024
const MAC = '52:54:00:9b:07:01'
const main = resolve(import.meta.dirname, '../../src/main.ts')
const skip = noTinyGuest() || missingTool('depmod', 'apt-cache')

let folder = ''
let service: MortalService
let requests: ImageRequests
before(async () => {
  if (skip) return
  folder = await folderInMemory('netboot')
  await must([
    process.execPath,
    main,
    'netboot',
    'build',
    '--into',
    join(folder, 'data/netboot'),
    '--kernel',
    'linux-image-cloud-amd64',
  ])
  service = await startMortal(folder)
  requests = new ImageRequests(service.address, await adminToken(service))
})
after(async () => {
  await service?.stop()
  if (folder) await removeFolder(folder)
})

interface Machine {
  /** What it says on its serial line, until that matches. */
  until(line: RegExp): Promise<string>
}
/** From the network first, then from its disk; in emulation. */
function machine(t: TestContext, disk: string): Machine {
  const script = `${service.address.replace('127.0.0.1', '10.0.2.2')}/netboot/boot.ipxe`
  // without graphics the BIOS and iPXE speak on the serial line too
  const words = [
    '-accel',
    'tcg',
    '-machine',
    'pc,graphics=off',
    '-m',
    '1024',
    '-display',
    'none',
    '-serial',
    'stdio',
    '-monitor',
    'none',
    '-boot',
    'order=nc',
  ]
  const network = ['-netdev', `user,id=net,bootfile=${script}`, '-device', `virtio-net-pci,netdev=net,mac=${MAC}`]
  const drive = ['-drive', `file=${disk},format=raw,if=virtio`]
  const child: ChildProcess = spawn('qemu-system-x86_64', [...words, ...network, ...drive], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(child, 'exit')
  t.after(async () => {
    child.kill('SIGKILL')
    await ended
  })
  let heard = ''
  const pieces = child.stdout![Symbol.asyncIterator]()
  return {
    async until(line) {
      while (!line.test(heard)) {
        const { value, done } = await pieces.next()
        heard += value ?? ''
        const isLost = done || /No bootable device|starting anew in a minute|Kernel panic/.test(heard)
        assert.ok(!isLost, `the machine stands still:\n${heard.slice(-3000)}`)
      }
      return heard
    },
  }
}

test('a blank machine is written from the network and starts from its disk; who has no order gets nothing', {
  skip,
}, async (t) => {
  const path = await scratch(t)
  const id = randomUUID()
  await requests.create(id, 'tiny')
  await requests.send(id, await readFile(await tinyGuest()))
  await writeFile(path('disk'), '')
  await truncate(path('disk'), 100 * MiB)
  const script = () => requests.ask('GET', `/netboot/boot.ipxe?mac=${MAC}`).then((answer) => answer.text())
  assert.match(await script(), /no image for this machine/)
  const order = { image: id, machine: MAC, target: '/dev/vda' }
  const allowed = await requests.json<{ id: string; state: string }>('POST', '/v1/deployments', order)
  assert.equal(allowed.state, 'waiting')
  await requests.delete(id)
  const started = machine(t, path('disk'))
  const heard = await started.until(/^ready/m)
  assert.match(heard, /imprint: writing tiny onto \/dev\/vda/)
  assert.match(heard, /\/dev\/vda is written and verified/)
  assert.match(heard, /guest boots=1 /)
  const { state } = await requests.json<{ state: string }>('GET', `/v1/deployments/${allowed.id}`)
  assert.equal(state, 'done')
  assert.match(await script(), /no image for this machine/)
})
