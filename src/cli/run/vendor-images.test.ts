/** `imprint run debian` where no such image is there: from a server that has a vendor's folder, as a mirror would. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { MiB } from '../../base/units.ts'
import { plainGuest } from '../../instances/hypervisor/memory/memory-host.ts'
import type { Environment } from '../output.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../real-service.suite.ts'
import { run, userOf } from '../run-cli.suite.ts'
import { digestIn } from './fetch-vendor-image.ts'
import { vendorImageFor, vendorImages } from './vendor-images.ts'

let service: RealService
let admin: Environment
let vendor: Awaited<ReturnType<typeof startVendor>>

before(async () => {
  vendor = await startVendor()
  service = await startService()
  service.host.guest = { ...plainGuest, booted: (machine) => void setImmediate(() => machine.print('here login: ')) }
})
beforeEach(() => {
  admin = { ...userOf(service.url, 'admin', ADMIN_PASSWORD, 'admin'), IMPRINT_VENDOR_IMAGES: vendor.address }
  vendor.asked.length = 0
  vendor.breakAfter = null
})
after(async () => {
  await service.instances.tasks.idle()
  await service.images.jobs.idle()
  await service.close()
  vendor.server.close()
})

/** Files by path, with ranges; a download breaks off where it is told to. */
async function startVendor() {
  const files = new Map<string, Uint8Array>()
  const asked: string[] = []
  const state = { breakAfter: null as number | null }
  const server = createServer((request, response) => {
    const path = request.url ?? ''
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
    asked.push(from > 0 ? `${path} from ${from}` : path)
    const file = files.get(path)
    if (file) sendFile(response, file.subarray(from), from > 0, state)
    else response.writeHead(404).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    server,
    files,
    asked,
    address,
    set breakAfter(bytes: number | null) {
      state.breakAfter = bytes
    },
  }
}
function sendFile(response: ServerResponse, rest: Uint8Array, isPart: boolean, state: { breakAfter: number | null }): void {
  response.writeHead(isPart ? 206 : 200, { 'content-length': rest.length })
  const { breakAfter } = state
  if (breakAfter === null || rest.length <= breakAfter) return void response.end(rest)
  state.breakAfter = null
  response.write(rest.subarray(0, breakAfter), () => response.socket?.destroySoon())
}

const sha512 = (bytes: Uint8Array) => createHash('sha512').update(bytes).digest('hex')
const DEBIAN_13 = '/cloud.debian.org/images/cloud/trixie/latest/'
function publish(folder: string, file: string, bytes: Uint8Array, sums = `${sha512(bytes)}  ${file}\n`): void {
  vendor.files.set(folder + file, bytes)
  vendor.files.set(`${folder}SHA512SUMS`, Buffer.from(`${'0'.repeat(128)}  other\n${sums}`))
}
const did = async (...words: string[]) => {
  const said = await run(words, { environment: admin })
  assert.equal(said.status, 0, said.err)
  return said
}
const leftOver = () => {
  const folder = join(admin.HOME!, '.cache/imprint/vendor-images')
  return existsSync(folder) ? readdirSync(folder).filter((name) => name !== 'lock') : []
}

test('a broken download resumes, what came is verified and added with its properties, and serves the next run', async () => {
  const disk = randomBytes(8 * MiB)
  publish(DEBIAN_13, 'debian-13-genericcloud-amd64.qcow2', disk)
  vendor.breakAfter = 3 * MiB
  const said = await did('run', 'debian', '--pull', '--name', 'first', '--json')
  assert.ok(
    vendor.asked.some((path) => / from \d{7}$/.test(path)),
    vendor.asked.join('\n'),
  )
  const [{ imageId, ssh, flavor }] = said.json
  assert.match(ssh, /^ssh -i \S+ -p \d+ debian@127\.0\.0\.1$/)
  assert.equal(flavor.name, 'm1.tiny')
  const image = (await run(['image', 'show', imageId, '--json'], { environment: admin })).json
  assert.deepEqual([image.name, image.status, image.sizeBytes], ['debian-13', 'active', 8 * MiB])
  const { os_distro, os_version, os_admin_user, hw_qemu_guest_agent } = image.properties
  assert.deepEqual([os_distro, os_version, os_admin_user, hw_qemu_guest_agent], ['debian', '13', 'debian', 'no'])
  assert.deepEqual(leftOver(), [])

  vendor.asked.length = 0
  const again = await did('run', 'debian', '--name', 'second', '--json')
  assert.equal(again.json[0].imageId, imageId)
  assert.deepEqual(vendor.asked, [])
})

test('two at once do not mix what they download, and a run that is interrupted is gone on with', async () => {
  const folder = '/cloud-images.ubuntu.com/releases/22.04/release/'
  const file = 'ubuntu-22.04-server-cloudimg-amd64.img'
  const disk = randomBytes(4 * MiB)
  vendor.files.set(folder + file, disk)
  vendor.files.set(`${folder}SHA256SUMS`, Buffer.from(`${createHash('sha256').update(disk).digest('hex')} *${file}\n`))
  const [one, other] = await Promise.all([1, 2].map(() => run(['run', 'ubuntu-22.04', '--pull'], { environment: admin })))
  const statuses = [one!.status, other!.status].sort()
  assert.deepEqual(statuses, [0, 5], one!.err + other!.err)
  assert.match(one!.err + other!.err, /another imprint run brings an image just now/)
})

test('what an earlier run had downloaded, and not added yet, is held against the checksum again and used', async () => {
  const folder = '/cloud-images.ubuntu.com/releases/24.04/release/'
  const file = 'ubuntu-24.04-server-cloudimg-amd64.img'
  const disk = randomBytes(MiB)
  vendor.files.set(`${folder}SHA256SUMS`, Buffer.from(`${createHash('sha256').update(disk).digest('hex')} *${file}\n`))
  const cache = join(admin.HOME!, '.cache/imprint/vendor-images')
  mkdirSync(cache, { recursive: true })
  writeFileSync(join(cache, file), randomBytes(MiB))
  const changed = await run(['run', 'ubuntu-24.04', '--pull'], { environment: admin })
  assert.equal(changed.status, 3, 'it is downloaded again, and there it is not')
  writeFileSync(join(cache, file), disk)
  await did('run', 'ubuntu-24.04', '--pull')
  assert.ok(!leftOver().includes(file), 'it is at the service now')
})

test('what is not what the vendor published is refused, and nothing of it is left', async () => {
  const folder = '/cloud.debian.org/images/cloud/bookworm/latest/'
  const file = 'debian-12-genericcloud-amd64.qcow2'
  publish(folder, file, randomBytes(MiB), `${'ab'.repeat(64)}  ${file}\n`)
  const forged = await run(['run', 'debian-12', '--pull'], { environment: admin })
  assert.equal(forged.status, 1)
  assert.match(
    forged.err,
    /the sha512 of debian-12-genericcloud-amd64\.qcow2 is [0-9a-f]{128}, and .* says (ab){64}; it was thrown away/,
  )
  publish(folder, file, randomBytes(MiB), '')
  const unsaid = await run(['run', 'debian-12', '--pull'], { environment: admin })
  assert.match(unsaid.err, /checksums have none for debian-12/)
  assert.deepEqual(leftOver(), [])
  assert.equal((await run(['image', 'list', '--name', 'debian-12', '--json'], { environment: admin })).json.length, 0)
})

test('of a folder that lists its builds the newest is taken', async () => {
  const folder = '/dl-cdn.alpinelinux.org/alpine/latest-stable/releases/cloud/'
  const build = (version: string) => `nocloud_alpine-${version}-x86_64-bios-cloudinit-r0.qcow2`
  const disk = randomBytes(MiB)
  const names = ['3.22.9', '3.22.10'].map(build)
  const links = [...names, `${build('3.22.10')}.sha512`, build('9.9.9').replace('bios', 'uefi'), '../'].map(
    (name) => `<a href="${name}">`,
  )
  vendor.files.set(folder, Buffer.from(links.join('\n')))
  vendor.files.set(folder + names[1], disk)
  vendor.files.set(`${folder}${names[1]}.sha512`, Buffer.from(`${sha512(disk)}\n`))
  await did('run', 'alpine', '--pull', '--name', 'small')
  assert.ok(vendor.asked.includes(folder + names[1]))
})

test('without --pull, and without a terminal to ask on, nothing is downloaded', async () => {
  const said = await run(['run', 'fedora'], { environment: admin })
  assert.equal(said.status, 3)
  assert.match(said.err, /imprint run fedora --pull brings Fedora Cloud 44 from dl\.fedoraproject\.org/)
  assert.deepEqual(vendor.asked, [])
  const gone = await run(['run', 'fedora', '--pull'], { environment: admin })
  assert.equal(gone.status, 3)
  assert.match(gone.err, /was answered with 404/)
})

test('checksums are read in the forms that vendors have', () => {
  const [a, b] = ['a'.repeat(64), 'b'.repeat(64)]
  assert.equal(digestIn(`${b}  y\n${a}  x\n`, 'x', 'sha256'), a)
  assert.equal(digestIn(`${b} *y\n${a} *x\n`, 'x', 'sha256'), a)
  assert.equal(digestIn(`# x: 1 bytes\nSHA256 (y) = ${b}\nSHA256 (x) = ${a}\n-----BEGIN`, 'x', 'sha256'), a)
  assert.equal(digestIn(`${a}\n`, 'x', 'sha256'), a)
  for (const text of ['', `${a}\n${b}\n`, `${a}  y\n`, `${a.slice(1)}  x\n`, `${a}${a}  x\n`]) {
    assert.throws(() => digestIn(text, 'x', 'sha256'), { code: 'not-found' }, text)
  }
})

test('each name finds its image, the newest where no version is said, and every address is HTTPS', () => {
  const found = (name: string) => vendorImageFor(name)?.title
  assert.deepEqual(['debian', 'debian-12', 'Debian 12', 'ubuntu:22.04', 'alpine'].map(found), [
    'Debian 13',
    'Debian 12',
    'Debian 12',
    'Ubuntu 22.04 LTS',
    'Alpine Linux',
  ])
  assert.deepEqual(['debian-11', 'windows', '', 'debian-12-mine'].map(found), [undefined, undefined, undefined, undefined])
  for (const { folder } of vendorImages) assert.match(folder, /^https:\/\/[^/]+\/.*\/$/)
})
