import type { Duplex } from 'node:stream'

/**
 * What runs machines on one host. It knows processes, devices and files, and nothing of projects, images or records. A machine
 * lives on when the service stops: whoever opens the hypervisor again finds it. `hypervisor.suite.ts` says what an adapter
 * must do.
 */
export interface Hypervisor {
  /** Name in `GET /os-hypervisors`: "QEMU". */
  readonly type: string
  /** Found out by trying when the hypervisor was opened. */
  readonly abilities: HypervisorAbilities
  /**
   * Makes the machine's own files and starts it. Cut short or failed, nothing of it is left.
   * @throws ServiceError `conflict` where the id is taken; `invalid-request` for what this host cannot give (architecture,
   *   firmware, accelerator …); `unavailable` with the process's own last words where it does not start; `no-space`; `cancelled`
   */
  launch(machine: MachineSpec, signal?: AbortSignal): Promise<void>
  /** Starts a machine that is `shutdown` or `crashed` again, on the files it has. @throws as `launch`; `not-found` */
  start(id: string, changes: MachineChanges): Promise<void>
  /** Every machine that has files here, running or not. */
  list(): Promise<readonly FoundMachine[]>
  /** @throws ServiceError `not-found` */
  show(id: string): Promise<FoundMachine>
  /**
   * The power button, and after `graceMs` the plug. Settles when the machine is `shutdown`.
   * @param graceMs 0: the plug at once
   */
  stop(id: string, graceMs: number): Promise<void>
  /** `soft`: the guest is asked to (control-alt-delete or its agent); `hard`: the reset button. */
  reboot(id: string, how: 'soft' | 'hard'): Promise<void>
  /** Processors stand still, memory stays. @throws ServiceError `conflict` where it is not running */
  pause(id: string): Promise<void>
  /** @throws ServiceError `conflict` where it is not paused */
  resume(id: string): Promise<void>
  /** What the guest wrote to its first serial port, since its files were made: the newest `bytes`, kept over restarts. */
  consoleLog(id: string, bytes: number): Promise<Uint8Array>
  /** The first serial port, both ways. The log goes on beside it. One at a time: a newer one ends the older. */
  serial(id: string): Promise<Duplex>
  /** Stops the machine where it runs and deletes its files. Removing what is not there succeeds. */
  remove(id: string): Promise<void>
  /** @returns ends it. `listener` is told of each change of power that nobody asked for as well: a guest's own poweroff, a crash. */
  watch(listener: (machine: FoundMachine) => void): () => void
  /** Lets go of all machines, which run on. */
  close(): Promise<void>
}

/** Nova's words. `crashed`: the process ended otherwise than by a shutdown. */
export type PowerState = 'running' | 'paused' | 'shutdown' | 'crashed'

export interface FoundMachine {
  readonly id: string
  readonly power: PowerState
  /** The process's own last words, where it crashed. */
  readonly reason: string | null
  /** Bytes that the machine's own files take on this host. */
  readonly diskBytes: number
}

export interface HypervisorAbilities {
  readonly version: string
  /** Guest architectures that can run here, in the words of Glance's `hw_architecture`: `x86_64`, `aarch64` … */
  readonly architectures: readonly string[]
  /** Of the host's own architecture, best first. */
  readonly accelerators: readonly ('kvm' | 'tcg')[]
  readonly firmwares: readonly ('bios' | 'uefi')[]
  readonly cpus: number
  readonly memoryBytes: number
}

export interface MachineSpec extends MachineChanges {
  /** UUID of the instance; the guest sees it as its system UUID. */
  readonly id: string
  /** For people: in the process list and in the guest's DMI data. At most 255 characters; anything. */
  readonly name: string
  readonly cpus: number
  readonly memoryBytes: number
  readonly hardware: Hardware
  readonly disks: readonly MachineDisk[]
  readonly networks: readonly MachineNetwork[]
  /** Cloud-init's NoCloud data, which the guest finds on a small CD-ROM; absent: none. */
  readonly seed?: SeedFiles
}

/** What may differ from one start to the next. */
export interface MachineChanges {
  /** Where each base disk is to be had now, by disk name. Absent: where it was. */
  readonly bases?: Readonly<Record<string, DiskAddress>>
}

/** What the image's properties ask for; the words and values are Glance's (`hw_…`). */
export interface Hardware {
  readonly architecture: string
  /** `pc`, `q35`, `virt` …; null: what fits the architecture and the firmware. */
  readonly machineType: string | null
  readonly firmware: 'bios' | 'uefi'
  readonly secureBoot: boolean
  readonly diskBus: 'virtio' | 'scsi' | 'sata' | 'ide'
  readonly networkModel: 'virtio' | 'e1000' | 'e1000e' | 'rtl8139'
  /** `host`, `max`, a QEMU model; null: the best that the accelerator has. */
  readonly cpuModel: string | null
  readonly qemuGuestAgent: boolean
  /** virtio-rng. */
  readonly randomness: boolean
}

/** In order of boot: the first one is the root disk. */
export interface MachineDisk {
  /** `root`, or a volume's id. */
  readonly name: string
  /** Of the disk that the guest sees; its base may be smaller: zeros follow. */
  readonly bytes: number
  /** Read where the guest has not written; absent: zeros. Never written. */
  readonly base?: DiskAddress
  /** What the guest reads as the disk's serial number; at most 20 characters. */
  readonly serial: string
}

/** An NBD export. Its name is a secret. */
export interface DiskAddress {
  readonly socketPath: string
  readonly exportName: string
}

/** QEMU's user-mode network: the guest reaches out, and named ports of it are reached from the host. */
export interface MachineNetwork {
  /** `52:54:00:…` */
  readonly mac: string
  readonly forwards: readonly PortForward[]
}
export interface PortForward {
  readonly protocol: 'tcp' | 'udp'
  readonly hostAddress: string
  readonly hostPort: number
  readonly guestPort: number
}

/** Text of the files of cloud-init's NoCloud data source. */
export interface SeedFiles {
  readonly metaData: string
  readonly userData: string
  readonly networkConfig: string | null
  readonly vendorData: string | null
}
