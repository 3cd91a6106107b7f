import { readdir, readFile, realpath, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { ServiceError } from '../../base/errors.ts'

/** Where the kernel tells of devices; a test may have folders of its own. */
export interface KernelFolders {
  readonly sys: string
  readonly proc: string
}
export const kernelFolders: KernelFolders = { sys: '/sys', proc: '/proc' }

/** A disk, or a partition, as the kernel knows it. */
export interface BlockDevice {
  /** `sda`, `nvme0n1p2`. */
  readonly name: string
  readonly bytes: number
  /** What the device reads and writes at least, and its partition table counts in. */
  readonly sectorBytes: number
  readonly isReadOnly: boolean
  readonly model: string | null
  readonly serial: string | null
  /** `major:minor` of itself and of its partitions. */
  readonly numbers: ReadonlySet<string>
  /** What stands on it or on one of its partitions: device mapper, md, bcache. */
  readonly holders: readonly string[]
}

/** Sizes in /sys count these, whatever the device's own sectors are. Source: Linux, Documentation/ABI/stable/sysfs-block. */
const SYS_SECTOR_BYTES = 512
/** The header of a SCSI VPD page: SPC-4, 7.8.1. */
const VPD_HEADER_BYTES = 4

/** `major:minor` of what a path names; undefined where it is no block device. */
export async function deviceNumber(path: string): Promise<string | undefined> {
  const found = await stat(path, { bigint: true }).catch(() => undefined)
  return found?.isBlockDevice() ? numberOf(found.rdev) : undefined
}
/** As glibc's gnu_dev_major and gnu_dev_minor take it apart. */
function numberOf(device: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn & 0xffffffffn)
  return `${major}:${minor}`
}

/** @throws ServiceError `unavailable` where the kernel tells nothing of it */
export async function describeDevice(number: string, { sys }: KernelFolders): Promise<BlockDevice> {
  const folder = await realpath(join(sys, 'dev/block', number)).catch(() => undefined)
  const said = folder === undefined ? null : await line(join(folder, 'size'))
  if (folder === undefined || said === null || !/^\d+$/.test(said)) {
    throw new ServiceError('unavailable', `the kernel tells nothing of the block device ${number} (${sys}): is /sys mounted?`)
  }
  const isPartition = (await line(join(folder, 'partition'))) !== null
  const disk = isPartition ? join(folder, '..') : folder
  const parts = await partitionsOf(folder)
  const holders = await Promise.all([folder, ...parts].map((one) => readdir(join(one, 'holders')).catch(() => [])))
  const numbers = await Promise.all(parts.map((part) => line(join(part, 'dev'))))
  return {
    name: basename(folder),
    bytes: Number(said) * SYS_SECTOR_BYTES,
    sectorBytes: Number(await line(join(disk, 'queue/logical_block_size'))) || SYS_SECTOR_BYTES,
    isReadOnly: (await line(join(folder, 'ro'))) === '1',
    model: await line(join(disk, 'device/model')),
    serial: await serialOf(disk),
    numbers: new Set([number, ...numbers.filter((one) => one !== null)]),
    holders: holders.flat(),
  }
}

async function partitionsOf(folder: string): Promise<readonly string[]> {
  const names = await readdir(folder)
  const areParts = await Promise.all(names.map(async (name) => (await line(join(folder, name, 'partition'))) !== null))
  return names.filter((_, index) => areParts[index]).map((name) => join(folder, name))
}

/** virtio has it at the disk, NVMe at its controller, SCSI in a page of vital product data. */
async function serialOf(disk: string): Promise<string | null> {
  const told = (await line(join(disk, 'serial'))) ?? (await line(join(disk, 'device/serial')))
  if (told !== null) return told
  const page = await readFile(join(disk, 'device/vpd_pg80')).catch(() => undefined)
  return page ? printable(page.subarray(VPD_HEADER_BYTES).toString('latin1')) : null
}

/**
 * @throws ServiceError `conflict` where the device or a part of it is mounted, swapped to, or the ground of another device
 */
export async function assertUnused(device: BlockDevice, path: string, { proc }: KernelFolders): Promise<void> {
  const refuse = (problem: string): never => {
    throw new ServiceError('conflict', `${path} is in use: ${problem}; nothing was written`, { device: device.name })
  }
  for (const { number, source, place } of await mounts(proc)) {
    const isHere = device.numbers.has(number) || device.numbers.has((await deviceNumber(source)) ?? '')
    if (isHere && place === '/') refuse('this system runs from it. Start the machine from another disk, or from the network')
    if (isHere) refuse(`it is mounted at ${place}. Unmount it first (umount ${place})`)
  }
  for (const swap of await swaps(proc)) {
    if (device.numbers.has((await deviceNumber(swap)) ?? ''))
      refuse(`the system swaps to ${swap}. End that first (swapoff ${swap})`)
  }
  const [holder] = device.holders
  if (holder !== undefined) refuse(`${holder} stands on it (LVM, RAID, encryption). Take that down first`)
}

/** @throws ServiceError `conflict` where a loop device shows the file as a disk */
export async function assertNoLoop(path: string, { sys }: KernelFolders): Promise<void> {
  const file = await realpath(path).catch(() => undefined)
  const names = await readdir(join(sys, 'class/block')).catch(() => [])
  for (const name of names.filter((one) => one.startsWith('loop'))) {
    const backing = await readFile(join(sys, 'class/block', name, 'loop/backing_file'), 'utf8').catch(() => undefined)
    if (file === undefined || backing?.trimEnd() !== file) continue
    throw new ServiceError(
      'conflict',
      `${path} is in use: /dev/${name} shows it as a disk. Write to that, or detach it (losetup -d)`,
      {
        device: name,
      },
    )
  }
}

interface Mount {
  readonly number: string
  readonly source: string
  readonly place: string
}

/** Source: proc_pid_mountinfo(5): id, parent, major:minor, root, mount point, options, fields, "-", type, source, options. */
async function mounts(proc: string): Promise<readonly Mount[]> {
  const text = await readFile(join(proc, 'self/mountinfo'), 'utf8')
  return text.split('\n').flatMap((one) => {
    const [own = '', rest = ''] = one.split(' - ')
    const [, , number, , place] = own.split(' ')
    const source = rest.split(' ')[1] ?? ''
    return number !== undefined && place !== undefined ? [{ number, source: unescaped(source), place: unescaped(place) }] : []
  })
}

/** Source: proc_swaps(5). */
async function swaps(proc: string): Promise<readonly string[]> {
  const text = await readFile(join(proc, 'swaps'), 'utf8').catch(() => '')
  const lines = text.split('\n').slice(1).filter(Boolean)
  return lines.map((one) => unescaped(one.split(/\s/)[0]!))
}

/** The kernel writes space, tab, newline and backslash as three octal digits. */
const unescaped = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

async function line(path: string): Promise<string | null> {
  const text = await readFile(path, 'latin1').catch(() => undefined)
  return text === undefined ? null : printable(text)
}
/** What a device says of itself is shown, so it must not steer. */
const printable = (text: string): string | null => text.replace(/[^\x20-\x7e]/g, '').trim() || null
