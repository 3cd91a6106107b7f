import { readdir, readFile, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { type DiskChoice, parseDiskChoice } from '../../base/disk-choice.ts'
import { ServiceError } from '../../base/errors.ts'
import { formatBytes, GiB } from '../../base/units.ts'
import { type BlockDevice, describeDevice, type KernelFolders, kernelFolders } from './block-device.ts'

/** A whole disk of this machine that a system may be written to. */
interface Disk extends Pick<BlockDevice, 'name' | 'bytes' | 'model' | 'serial'> {
  /** As the kernel has it: `naa.5000c500a1b2c3d4`, `eui.0025385b71b0b3a1`. */
  readonly wwn: string | null
  /** A stick, a card, whatever hangs on USB: the kernel says so itself only of those whose medium can be taken out. */
  readonly isRemovable: boolean
}

/** Optical and floppy drives, and the parts of an eMMC that firmware boots from. */
const NO_DISK = /^(sr|fd)\d|^mmcblk\d+(boot\d|rpmb)/

/** Controllers find their disks one after another, those on USB and Fibre Channel seconds after the system has started. */
const LOOK_EVERY_MS = 1000
const LOOKS_ALIKE = 5
const MOST_LOOKS = 60

/**
 * The path of the disk that is meant, on a machine that may just have started: chosen when the same disks have been there for five seconds. Until
 * what is meant is among them it is looked for again, for a minute.
 * @param choice as `parseDiskChoice` takes it
 * @param pause between two looks, a second (`secondsOf`)
 * @throws ServiceError `invalid-request`; `not-found` where there is none, `conflict` where it may be one of several, both naming those that are there,
 *   or where disks go on coming and going; what `pause` throws
 */
export async function chosenDisk(
  choice: string,
  pause: () => Promise<unknown>,
  kernel: KernelFolders = kernelFolders,
): Promise<string> {
  const wanted = parseDiskChoice(choice)
  if (wanted.by === 'path') return wanted.path
  let disks = await disksOf(kernel)
  for (let looks = 1, alike = 0; looks < MOST_LOOKS; looks += 1) {
    await pause()
    const now = await disksOf(kernel)
    alike = isDeepStrictEqual(now, disks) ? alike + 1 : 0
    disks = now
    const isSettled = alike >= LOOKS_ALIKE
    if (isSettled && matching(wanted, disks).length > 0) return oneOf(disks, wanted, choice)
    if (!isSettled && looks === MOST_LOOKS - 1) {
      throw new ServiceError('conflict', `disks of this machine go on coming and going: ${listed(disks)}; nothing was written`)
    }
  }
  return oneOf(disks, wanted, choice)
}

export const secondsOf = (signal: AbortSignal) => (): Promise<void> =>
  wait(LOOK_EVERY_MS, undefined, { signal }).catch(() => {
    throw new ServiceError('cancelled', 'stopped before a disk was chosen; nothing was written')
  })

/** @throws ServiceError `not-found`, `conflict` */
function oneOf(disks: readonly Disk[], wanted: Exclude<DiskChoice, { by: 'path' }>, choice: string): string {
  const found = matching(wanted, disks)
  const [one, ...others] = found
  if (!one) throw new ServiceError('not-found', `this machine has no disk with ${choice}: it has ${listed(disks)}`)
  if (others.length > 0) {
    throw new ServiceError(
      'conflict',
      `${choice} may be one of ${found.length} disks, ${listed(found)}: name it by serial= or wwn=; nothing was written`,
    )
  }
  return `/dev/${one.name}`
}

function matching(wanted: Exclude<DiskChoice, { by: 'path' }>, disks: readonly Disk[]): readonly Disk[] {
  if (wanted.by === 'serial') return disks.filter(({ serial }) => serial === wanted.value)
  if (wanted.by === 'wwn') return disks.filter(({ wwn }) => wwn !== null && bare(wwn) === bare(wanted.value))
  const fixed = disks.filter(({ isRemovable }) => !isRemovable) // who means a stick says which one
  if (wanted.by === 'size') return fixed.filter(({ bytes }) => Math.floor(bytes / GiB) === wanted.gib)
  const sizes = fixed.map(({ bytes }) => bytes)
  const bytes = wanted.by === 'largest' ? Math.max(...sizes) : Math.min(...sizes)
  return fixed.filter((disk) => disk.bytes === bytes)
}

/** The kernel writes `naa.5000…`, udev and labels `0x5000…`, controllers `5000:…`. */
const bare = (wwn: string): string =>
  wwn
    .toLowerCase()
    .replace(/^(naa\.|eui\.|0x)/, '')
    .replaceAll(/[:-]/g, '')

const listed = (disks: readonly Disk[]): string => disks.map(described).join('; ') || 'none'
const described = ({ name, bytes, model, serial, wwn }: Disk): string => {
  const facts = [formatBytes(bytes), model, serial && `serial=${serial}`, wwn && `wwn=${wwn}`].filter(Boolean)
  return `${name} (${facts.join(', ')})`
}

/** In the order of their names. */
async function disksOf(kernel: KernelFolders): Promise<readonly Disk[]> {
  const disks: Disk[] = []
  for (const name of (await readdir(join(kernel.sys, 'block')).catch(() => [])).sort()) {
    const folder = join(kernel.sys, 'block', name)
    const says = async (file: string) => ((await readFile(join(folder, file), 'latin1').catch(() => null)) ?? '').trim()
    const hasHardware = (await readdir(join(folder, 'device')).catch(() => null)) !== null // else: loop, ram, mapped, md
    if (!hasHardware || NO_DISK.test(name) || (await says('hidden')) === '1') continue
    const { bytes, model, serial, isReadOnly } = await describeDevice(await says('dev'), kernel)
    if (bytes === 0 || isReadOnly) continue
    const wwn = printable((await says('wwid')) || (await says('device/wwid')))
    disks.push({ name, bytes, model, serial, wwn, isRemovable: await isRemovable(folder, says) })
  }
  return disks
}

/** An SSD on USB and a card in a reader of its own say `removable` 0. Source: Linux, Documentation/ABI/testing/sysfs-bus-mmc, sysfs-block. */
async function isRemovable(folder: string, says: (file: string) => Promise<string>): Promise<boolean> {
  if ((await says('removable')) === '1' || (await says('device/type')) === 'SD') return true
  return /\/usb\d/.test(await realpath(folder).catch(() => ''))
}

/** What a device says of itself is shown, so it must not steer. */
const printable = (text: string): string | null => text.replace(/[^\x20-\x7e]/g, '').trim() || null
