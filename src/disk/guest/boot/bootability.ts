import { formatBytes } from '../../../base/units.ts'
import type { GuestSystem } from '../system/systems.ts'
import { volumeNamed } from '../system/systems.ts'
import type { DiskLayout, Volume } from '../volumes/volumes.ts'
import type { BootFacts, BootStart } from './boot.ts'
import type { CloudInit } from './cloud-init.ts'
import { type DiskBus, diskDrivers, diskName, networkNeeds } from './drivers.ts'

/** Where a disk is to start: of a flavor with an image's properties, or of a server model. */
export interface BootTarget {
  readonly firmware: 'bios' | 'uefi'
  readonly secureBoot: boolean
  /** In the words of Glance's `architecture`. */
  readonly architecture: string
  readonly diskBus: DiskBus
  /** `hw_vif_model` or the name of a driver; null: none. */
  readonly networkModel: string | null
  /** What a person can look at; empty: nothing is asked of the disk. */
  readonly consoles: readonly ('serial' | 'vga')[]
  /** Sources of cloud-init that the place offers, as cloud-init calls them: `ConfigDrive`, `OpenStack`, `NoCloud`; empty: none. */
  readonly metadata: readonly string[]
  /** Null: as large as the image's. */
  readonly diskBytes: number | null
}

/** What is known of a disk. */
export interface BootSubject {
  readonly boot: BootFacts
  readonly layout: DiskLayout
  /** Undefined: there is none that is known. */
  readonly system: GuestSystem | undefined
  /** Of the system's programs; null: not known. */
  readonly architecture: string | null
  readonly cloudInit: CloudInit | undefined
}

export type ReasonCode =
  | 'no-boot-loader'
  | 'loader-incomplete'
  | 'no-fallback-loader'
  | 'loader-architecture'
  | 'architecture'
  | 'not-signed'
  | 'nothing-to-start'
  | 'start-unknown'
  | 'file-missing'
  | 'root-missing'
  | 'root-by-device'
  | 'disk-driver-missing'
  | 'disk-driver-not-in-initramfs'
  | 'root-driver-not-in-initramfs'
  | 'network-driver-missing'
  | 'not-looked-at'
  | 'mount-missing'
  | 'no-cloud-init'
  | 'cloud-init-disabled'
  | 'metadata-source'
  | 'console'
  | 'disk-too-small'

/** Why it does not start there, or may not. Strings of `found` may be the guest's: to be shown inert. */
export interface Reason {
  readonly code: ReasonCode
  /** `warn`: it starts, and something is amiss; or it could not be told. */
  readonly severity: 'will-not' | 'warn'
  /** What was found, and where. */
  readonly found: string
  /** What to do about it. */
  readonly change: string
}
export interface Bootability {
  readonly answer: 'yes' | 'warn' | 'no'
  readonly reasons: readonly Reason[]
}

/** Whether a disk will start there, or which change makes it so. It refuses nothing by itself. */
export function bootability(subject: BootSubject, target: BootTarget): Bootability {
  const check = new Check(subject, target)
  check.all()
  const { reasons } = check
  const answer = reasons.some(({ severity }) => severity === 'will-not') ? 'no' : reasons.length > 0 ? 'warn' : 'yes'
  return { answer, reasons }
}

/** Of disks: what a server of another architecture cannot run. i686 runs on x86_64. */
const runs = (machine: string, code: string): boolean => machine === code || (machine === 'x86_64' && code === 'i686')

class Check {
  readonly reasons: Reason[] = []
  readonly #subject: BootSubject
  readonly #target: BootTarget

  constructor(subject: BootSubject, target: BootTarget) {
    this.#subject = subject
    this.#target = target
  }

  all(): void {
    const { system, boot } = this.#subject
    const start = boot.starts[this.#target.firmware]
    this.#architecture()
    this.#size()
    if (this.#target.firmware === 'bios') this.#bios()
    else this.#uefi()
    if (start) this.#start(start)
    if (system?.family === 'linux') {
      this.#mounts(system)
      this.#cloudInit(start)
    }
  }

  #wont(code: ReasonCode, found: string, change: string): void {
    this.reasons.push({ code, severity: 'will-not', found, change })
  }

  #warn(code: ReasonCode, found: string, change: string): void {
    this.reasons.push({ code, severity: 'warn', found, change })
  }

  #architecture(): void {
    const { architecture } = this.#subject
    const wanted = this.#target.architecture
    if (architecture !== null && !runs(wanted, architecture))
      this.#wont('architecture', `its programs are for ${architecture}; the server is ${wanted}`, `use an image for ${wanted}`)
  }

  #size(): void {
    const { diskBytes } = this.#target
    if (diskBytes === null) return
    const ends = this.#subject.layout.volumes.map(({ offset, bytes }) => (offset ?? 0) + bytes)
    const end = Math.max(0, ...ends)
    if (end > diskBytes)
      this.#wont(
        'disk-too-small',
        `its volumes end at ${formatBytes(end)}; the disk has ${formatBytes(diskBytes)}`,
        `choose a disk of ${formatBytes(end)} or more`,
      )
  }

  #bios(): void {
    const { bios, efi } = this.#subject.boot
    const codes = [bios.code, ...bios.partitions.map(({ code }) => code)]
    if (codes.every((code) => code === 'none'))
      this.#wont(
        'no-boot-loader',
        'there is no boot code for BIOS in the first sector of the disk',
        efi.length > 0
          ? 'start it by UEFI (hw_firmware_type=uefi), or run grub-install --target=i386-pc on it'
          : 'install a boot loader: grub-install --target=i386-pc',
      )
    else if (codes.every((code) => code === 'none' || code === 'unknown'))
      this.#warn('start-unknown', 'the boot code in the first sector is none that is known here', 'start it once and see')
    if (bios.code === 'grub' && !bios.hasGrubCore)
      this.#wont(
        'loader-incomplete',
        'the boot code is that of GRUB, and what it loads is not on the disk',
        'run grub-install --target=i386-pc again',
      )
  }

  #uefi(): void {
    const { efi, bios } = this.#subject.boot
    const { architecture, secureBoot } = this.#target
    if (efi.length === 0) {
      const change =
        bios.code === 'none'
          ? 'install a boot loader on an EFI system partition'
          : 'start it by BIOS (hw_firmware_type=bios), or make an EFI system partition and run grub-install --removable'
      this.#wont('no-boot-loader', 'there is no EFI program on a FAT file system of the disk', change)
      return
    }
    const fallbacks = efi.filter(({ isFallback }) => isFallback)
    const usable = fallbacks.filter((each) => each.architecture === architecture)
    if (fallbacks.length === 0)
      this.#wont(
        'no-fallback-loader',
        `${efi[0]!.volume} has ${efi[0]!.path}, which firmware starts only if it has an entry for it`,
        'run grub-install --removable, or copy the loader to /EFI/BOOT',
      )
    else if (usable.length === 0)
      this.#wont(
        'loader-architecture',
        `${fallbacks[0]!.path} is for ${fallbacks[0]!.architecture ?? 'another architecture'}`,
        `install a boot loader for ${architecture}`,
      )
    else if (secureBoot && !usable[0]!.isSigned)
      this.#wont(
        'not-signed',
        `${usable[0]!.path} has no signature, and the firmware starts only what is signed`,
        'install the signed loader (shim-signed, grub-efi-amd64-signed), or start it without Secure Boot',
      )
  }

  #start(start: BootStart): void {
    const { architecture, firmware, secureBoot } = this.#target
    const { entry, kernel, missing, config, loader } = start
    for (const path of missing)
      this.#wont(
        'file-missing',
        `${config ?? loader} starts ${path}, which is not on the disk`,
        'run update-grub or its like, or put the file back',
      )
    const needsMenu = ['grub', 'syslinux', 'systemd-boot'].includes(loader)
    if (needsMenu && config === null && !entry)
      this.#wont(
        'nothing-to-start',
        `there is no configuration of ${loader} on the disk`,
        'run update-grub, grub2-mkconfig or its like',
      )
    else if (needsMenu && !entry)
      this.#warn('start-unknown', `what ${config} starts is known only when it starts`, 'start it once and see')
    if (!kernel || !entry) {
      // never "yes" where nobody could look
      if (this.reasons.every(({ code }) => !['file-missing', 'nothing-to-start', 'start-unknown'].includes(code)))
        this.#warn(
          'not-looked-at',
          `${config ?? `the loader (${loader})`} starts what is not read here: whether it has the drivers is not known`,
          'start it once and see',
        )
      return
    }
    if (
      kernel.architecture !== null &&
      !runs(architecture, kernel.architecture) &&
      this.reasons.every(({ code }) => code !== 'architecture')
    )
      this.#wont(
        'architecture',
        `${kernel.path} is for ${kernel.architecture}; the server is ${architecture}`,
        `use an image for ${architecture}`,
      )
    if (firmware === 'uefi' && secureBoot && kernel.kind !== 'gzip' && !kernel.isSigned)
      this.#wont('not-signed', `${kernel.path} has no signature`, 'install a signed kernel, or start it without Secure Boot')
    const root = this.#root(start)
    this.#diskDrivers(start)
    if (root) this.#rootDriver(start, root)
    this.#network(start)
    this.#console(entry.arguments)
  }

  /** The volume of `root=`; undefined where that is not known. */
  #root({ entry, config }: BootStart): Volume | undefined {
    const said = wordOf(entry!.arguments, 'root')
    const { system, layout } = this.#subject
    if (said === undefined || said.includes('${')) return system?.volume
    const isNamed = /^(UUID|LABEL|PARTUUID|PARTLABEL)=|^\/dev\//.test(said)
    if (!isNamed) return system?.volume
    const volume = volumeNamed(said, layout.volumes)
    if (!volume) {
      // logical volumes may lie where nobody looked
      const isHidden =
        said.startsWith('/dev/mapper/') || layout.volumes.some(({ content }) => content.kind === 'other' && content.note !== '')
      const put = isHidden ? this.#warn.bind(this) : this.#wont.bind(this)
      put('root-missing', `${config ?? 'the boot loader'} has root=${said}, which is not on the disk`, this.#rootAdvice())
      return undefined
    }
    const device = /^\/dev\/((?:[vsh]|xv)d[a-z]|nvme\d+n\d+)/.exec(said)?.[1]
    const expected = diskName(this.#target.diskBus)
    if (device !== undefined && device !== expected)
      this.#wont(
        'root-by-device',
        `${config ?? 'the boot loader'} has root=${said}; the disk is ${expected} there`,
        this.#rootAdvice(),
      )
    return volume
  }

  #rootAdvice(): string {
    const volume = this.#subject.system?.volume
    const uuid = volume?.content.kind === 'files' ? volume.content.files.uuid : ''
    return uuid === '' ? 'name the root by its UUID' : `say root=UUID=${uuid}`
  }

  #diskDrivers(start: BootStart): void {
    const { diskBus } = this.#target
    for (const group of diskDrivers[diskBus]) this.#driver(start, group, diskBus, 'disk-driver-not-in-initramfs')
  }

  #rootDriver(start: BootStart, { content }: Volume): void {
    if (content.kind !== 'files') return
    const type = content.files.type === 'ext2' || content.files.type === 'ext3' ? 'ext4' : content.files.type
    if (['ext4', 'xfs', 'btrfs', 'f2fs', 'squashfs', 'erofs'].includes(type))
      this.#driver(start, [type], `the root, which is ${type},`, 'root-driver-not-in-initramfs')
  }

  /** One of `group` must be built in, or in the initramfs; without that, nothing can be loaded before the root is there. */
  #driver({ kernel, initramfs, entry }: BootStart, group: readonly string[], what: string, code: ReasonCode): void {
    const { modules } = kernel!
    const names = group.join(' or ')
    if (group.some((name) => initramfs?.modules.has(name) || modules?.builtIn.has(name))) return
    const isOnDisk = group.some((name) => modules?.modules.has(name))
    if (!modules?.isKnown || (initramfs && !initramfs.isWhole) || (!initramfs && entry!.initramfs.length > 0)) {
      const why = !modules?.isKnown
        ? `the modules of ${kernel!.version ?? kernel!.path} could not be read`
        : (initramfs?.notes[0] ?? 'its initramfs could not be read')
      if (this.reasons.every((each) => each.code !== 'not-looked-at'))
        this.#warn('not-looked-at', `${why}: whether it has ${names} for ${what} is not known`, 'start it once and see')
    } else if (isOnDisk)
      this.#wont(
        code,
        initramfs
          ? `${initramfs.path} lacks the module ${names}, which ${what} needs`
          : `${names} is a module, and there is no initramfs to load it from`,
        remedyOf(initramfs?.madeBy ?? null, group[0]!),
      )
    else
      this.#wont(
        'disk-driver-missing',
        `the kernel ${kernel!.version ?? kernel!.path} has no ${names}, which ${what} needs`,
        'install another kernel (linux-image-amd64 in place of a cloud kernel, say), or choose another bus',
      )
  }

  #network({ kernel }: BootStart): void {
    const { networkModel } = this.#target
    if (networkModel === null || !kernel?.modules?.isKnown) return
    const { builtIn, modules } = kernel.modules
    for (const group of networkNeeds(networkModel)) {
      if (group.some((name) => builtIn.has(name) || modules.has(name))) continue
      this.#warn(
        'network-driver-missing',
        `the kernel ${kernel.version} has no ${group.join(' or ')}, which the network adapter ${networkModel} needs`,
        'install another kernel, or choose another adapter (hw_vif_model)',
      )
    }
  }

  /** Linux Documentation/admin-guide/serial-console.rst: without `console=`, the screen. */
  #console(words: string): void {
    const { consoles, architecture } = this.#target
    if (consoles.length === 0) return
    const said = [...words.matchAll(/(?:^|\s)console=([^\s,]+)/g)].map(([, name]) => name!)
    const isSerial = said.some((name) => /^(tty(S|AMA|USB)|hvc)/.test(name))
    const isScreen = said.length === 0 || said.some((name) => /^tty\d*$/.test(name))
    const device = architecture === 'aarch64' ? 'ttyAMA0' : 'ttyS0'
    if (!consoles.includes('vga') && !isSerial)
      this.#warn(
        'console',
        'the kernel writes to the screen, and the server has a serial console alone',
        `add console=${device},115200 to the kernel's arguments`,
      )
    if (!consoles.includes('serial') && !isScreen)
      this.#warn(
        'console',
        `the kernel writes to ${said.join(' and ')}, and the server has a screen alone`,
        "add console=tty0 to the kernel's arguments",
      )
  }

  #mounts({ mounts }: GuestSystem): void {
    for (const { entry, volume } of mounts) {
      const { source, path, options } = entry
      const isWaitedFor =
        !options.includes('nofail') && !options.includes('noauto') && /^(UUID|LABEL|PARTUUID|PARTLABEL)=|^\/dev\//.test(source)
      if (volume === null && isWaitedFor)
        this.#warn(
          'mount-missing',
          `/etc/fstab mounts ${source} at ${path}, which is not on this disk: the start waits for it, and then stops for an emergency`,
          `attach that disk, or add nofail to the line of ${path}`,
        )
      const device = /^\/dev\/((?:[vsh]|xv)d[a-z]|nvme\d+n\d+)/.exec(source)?.[1]
      if (volume !== null && isWaitedFor && device !== undefined && device !== diskName(this.#target.diskBus))
        this.#warn(
          'mount-missing',
          `/etc/fstab mounts ${source} at ${path}; the disk is ${diskName(this.#target.diskBus)} there`,
          'name it by its UUID',
        )
    }
  }

  #cloudInit(start: BootStart | null): void {
    const { metadata } = this.#target
    const { cloudInit } = this.#subject
    if (metadata.length === 0) return
    if (!cloudInit) {
      this.#warn(
        'no-cloud-init',
        'cloud-init is not installed: keys, host name and network of the server are not set',
        'install cloud-init',
      )
      return
    }
    const isOff = /(?:^|\s)cloud-init=disabled(?:\s|$)/.test(start?.entry?.arguments ?? '')
    const by = cloudInit.disabledBy ?? (isOff ? 'the argument cloud-init=disabled of the kernel' : null)
    if (by !== null) this.#warn('cloud-init-disabled', `cloud-init is switched off by ${by}`, 'remove that')
    const { sources, path } = cloudInit
    if (sources && !sources.some((name) => metadata.includes(name)))
      this.#warn(
        'metadata-source',
        `${path} has datasource_list: [${sources.join(', ')}]; there is ${metadata.join(', ')}`,
        `add ${metadata[0]} to it`,
      )
  }
}

/** The last one counts, as for the kernel. */
function wordOf(words: string, name: string): string | undefined {
  const found = words.split(/\s+/).filter((word) => word.startsWith(`${name}=`))
  return found
    .at(-1)
    ?.slice(name.length + 1)
    .replaceAll('"', '')
}

function remedyOf(madeBy: string | null, module: string): string {
  if (madeBy === 'initramfs-tools') return `add ${module} to /etc/initramfs-tools/modules and run update-initramfs -u`
  if (madeBy === 'dracut') return `run dracut -f --add-drivers ${module}, or with --no-hostonly`
  if (madeBy === 'mkinitcpio') return `add ${module} to MODULES in /etc/mkinitcpio.conf and run mkinitcpio -P`
  if (madeBy === 'mkinitfs') return `add ${module} to a file of /etc/mkinitfs/features.d and run mkinitfs`
  return `make the initramfs anew with ${module}`
}
