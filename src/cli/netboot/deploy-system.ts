import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, mkdtemp, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, relative, resolve } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { constants, createZstdCompress } from 'node:zlib'
import { ServiceError } from '../../base/errors.ts'
import { type CpioEntry, cpioParts } from './cpio.ts'
import { DebianPackages, tool } from './debian-packages.ts'

/** As the service looks for them in its folder. */
const CURRENT = 'current'
/** Drivers of what a disk and a network card may hang on, below the kernel's modules; others are brought where these need them. */
const DRIVERS = [
  'drivers/ata',
  'drivers/block',
  'drivers/hv',
  'drivers/message',
  'drivers/mmc',
  'drivers/net/ethernet',
  'drivers/net/hyperv',
  'drivers/net/net_failover.ko',
  'drivers/net/phy',
  'drivers/net/virtio_net.ko',
  'drivers/net/vmxnet3',
  'drivers/net/xen-netfront.ko',
  'drivers/nvme',
  'drivers/pci',
  'drivers/scsi',
  'drivers/usb/host',
  'drivers/usb/storage',
  'drivers/virtio',
  'drivers/xen',
  'net/packet',
]
/** Programs of this machine that are taken along where they are here: they free blocks that are to be zeros. */
const OPTIONAL_PROGRAMS = ['fallocate', 'blkdiscard']
/** Half a minute for all of it, a third larger than the best. */
const ZSTD_LEVEL = 9

const FOLDER = 0o040755
const PROGRAM = 0o100755
const FILE = 0o100644

export interface BuildWish {
  /** Where the service looks for it. */
  readonly into: string
  /** Packages are kept here. */
  readonly cache: string
  /** A package of a kernel, or one that names the newest. */
  readonly kernel: string
  /** Packages whose files are added: firmware of network cards. */
  readonly more: readonly string[]
  readonly onStep: (step: string) => void
}
export interface Built {
  readonly build: string
  readonly kernelVersion: string
  readonly kernelBytes: number
  readonly initramfsBytes: number
}

/**
 * Makes the system that machines start from the network, of Debian's packages, this Node and this Imprint. The newest becomes the current
 * one when it is whole; the one before stays, for machines that are starting.
 * @throws ServiceError `unavailable` naming the program that is missing or failed
 */
export async function buildDeploySystem({ into, cache, kernel, more, onStep }: BuildWish): Promise<Built> {
  const work = await mkdtemp(join(tmpdir(), 'imprint-netboot-'))
  try {
    await mkdir(into, { recursive: true, mode: 0o755 })
    const packages = new DebianPackages(cache)
    onStep('Bringing packages')
    const kernelPackage = await packages.behind(kernel, /^linux-image-/)
    for (const name of [kernelPackage, 'busybox-static', ...more]) await packages.unpack(name, join(work, 'root'))
    const version = await kernelVersion(join(work, 'root'))
    onStep(`Choosing drivers of ${version}`)
    await tool('depmod', ['-b', join(work, 'root'), version])
    const entries = withFolders([...(await systemEntries(work, version)), ...(await programEntries()), ...(await ownEntries())])
    onStep('Packing')
    return await publish(into, join(work, 'root/boot', `vmlinuz-${version}`), version, entries)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

async function kernelVersion(root: string): Promise<string> {
  const found = (await readdir(join(root, 'boot')).catch(() => [])).find((name) => name.startsWith('vmlinuz-'))
  if (found) return found.slice('vmlinuz-'.length)
  throw new ServiceError('invalid-request', 'the package of the kernel holds no kernel: name another with --kernel')
}

/** BusyBox, the drivers with what they need, and firmware. */
async function systemEntries(work: string, version: string): Promise<readonly CpioEntry[]> {
  const root = join(work, 'root')
  const modules = join(root, 'lib/modules', version)
  const wanted = await driversIn(modules)
  const lists = ['modules.dep', 'modules.alias', 'modules.symbols', 'modules.softdep', 'modules.builtin', 'modules.order']
  const firmware = await filesBelow(join(root, 'lib/firmware'))
  const here = (path: string, mode = FILE): CpioEntry => ({ path: relative(root, path), mode, content: { file: path } })
  return [
    { path: 'bin/busybox', mode: PROGRAM, content: { file: join(root, 'bin/busybox') } },
    ...wanted.map((name) => here(join(modules, name))),
    ...lists.map((name) => here(join(modules, name))),
    ...firmware.map((path) => here(path)),
  ]
}

/** Names below the folder of modules, each after what it needs. */
async function driversIn(modules: string): Promise<readonly string[]> {
  const needs = new Map<string, readonly string[]>()
  for (const line of (await readFile(join(modules, 'modules.dep'), 'utf8')).split('\n')) {
    const [name = '', rest = ''] = line.split(':')
    if (name !== '') needs.set(name, rest.trim().split(' ').filter(Boolean))
  }
  const chosen = [...needs.keys()].filter((name) => DRIVERS.some((driver) => isBelow(name, `kernel/${driver}`)))
  return [...new Set(chosen.flatMap((name) => [...(needs.get(name) ?? []), name]))].sort()
}
const isBelow = (name: string, place: string): boolean =>
  name === place || name.startsWith(`${place}/`) || name.startsWith(`${place}.`)

/** Node and others of this machine, with the libraries that they are linked with. */
async function programEntries(): Promise<readonly CpioEntry[]> {
  const programs = new Map([['bin/node', process.execPath]])
  for (const name of OPTIONAL_PROGRAMS) {
    const path = await tool('sh', ['-c', `command -v ${name}`]).catch(() => '')
    if (path !== '') programs.set(`usr/bin/${name}`, path.trim())
  }
  const linked = await Promise.all([...programs.values()].map((path) => tool('ldd', [path]).catch(() => '')))
  const libraries = new Set(linked.flatMap((text) => [...text.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path!)))
  const entries = [...programs].map(([path, file]) => ({ path, mode: PROGRAM, content: { file } }))
  return [...entries, ...[...libraries].map((file) => ({ path: file.slice(1), mode: PROGRAM, content: { file } }))]
}

/** This Imprint, as far as it runs there, and what starts it. */
async function ownEntries(): Promise<readonly CpioEntry[]> {
  const source = resolve(import.meta.dirname, '../..')
  const files = (await filesBelow(source)).filter((path) => path.endsWith('.ts') && !/\.(test|suite)\.ts$/.test(path))
  const beside = (name: string) => ({ file: join(import.meta.dirname, name) })
  return [
    { path: 'init', mode: PROGRAM, content: beside('deploy-system.init') },
    { path: 'imprint/dhcp', mode: PROGRAM, content: beside('deploy-system.dhcp') },
    { path: 'imprint/package.json', mode: FILE, content: '{"type":"module"}\n' },
    ...files.map((file) => ({ path: join('imprint/src', relative(source, file)), mode: FILE, content: { file } })),
  ]
}

async function filesBelow(folder: string): Promise<readonly string[]> {
  const found = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => [])
  return found.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}

/** With the folders before what is in them. */
function withFolders(entries: readonly CpioEntry[]): readonly CpioEntry[] {
  const folders = new Set(entries.flatMap(({ path }) => foldersOf(path)))
  return [...[...folders].sort().map((path) => ({ path, mode: FOLDER, content: '' })), ...entries]
}
const foldersOf = (path: string): readonly string[] => {
  const parts = dirname(path).split('/')
  return parts[0] === '.' ? [] : parts.map((_, index) => parts.slice(0, index + 1).join('/'))
}

/** The parts under their names, then the name of the build: who asks meanwhile gets the one before. */
async function publish(into: string, kernel: string, kernelVersion: string, entries: readonly CpioEntry[]): Promise<Built> {
  const unfinished = join(into, `unfinished-${process.pid}`)
  const hash = createHash('sha256').update(await readFile(kernel))
  const packed = async function* () {
    for await (const part of cpioParts(entries)) {
      hash.update(part)
      yield part
    }
  }
  const params = { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL, [constants.ZSTD_c_checksumFlag]: 1 }
  try {
    await pipeline(Readable.from(packed()), createZstdCompress({ params }), createWriteStream(unfinished, { flush: true }))
    const build = hash.digest('hex').slice(0, 16)
    const before = (await readFile(join(into, CURRENT), 'latin1').catch(() => '')).trim()
    await rename(unfinished, join(into, `initramfs-${build}`))
    await put(into, `kernel-${build}`, await readFile(kernel))
    await put(into, CURRENT, Buffer.from(`${build}\n`))
    for (const name of await readdir(into)) {
      const isOld = /^(kernel|initramfs)-/.test(name) && !name.endsWith(build) && !name.endsWith(before || build)
      if (isOld) await rm(join(into, name), { force: true })
    }
    const bytesOf = async (part: string) => (await stat(join(into, `${part}-${build}`))).size
    return { build, kernelVersion, kernelBytes: await bytesOf('kernel'), initramfsBytes: await bytesOf('initramfs') }
  } finally {
    await rm(unfinished, { force: true })
  }
}

async function put(folder: string, name: string, bytes: Uint8Array): Promise<void> {
  const unfinished = join(folder, `unfinished-${process.pid}-${name}`)
  const file = await open(unfinished, 'w', 0o644)
  await file.writeFile(bytes)
  await file.sync()
  await file.close()
  await rename(unfinished, join(folder, name))
}
