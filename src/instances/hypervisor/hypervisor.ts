import type { Duplex } from 'node:stream'
import type { SeedFiles } from '../seed/seed-disc.ts'
import type { MemoryState } from './machine-memory.ts'

export type { SeedFiles } from '../seed/seed-disc.ts'

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
   * Makes the machine's own files and starts it. Settles when its processors run. Cut short or failed, nothing of it is left.
   * @throws ServiceError `conflict` where the id or a host port is taken; `invalid-request` for what this host cannot give
   *   (architecture, firmware, processor model …), and where its memory was saved in a machine that differs; `unavailable` with the
   *   process's own last words where it does not start; `no-space`; `cancelled`. Errors of the memory's stream pass through
   */
  launch(machine: MachineSpec, signal?: AbortSignal): Promise<void>
  /**
   * Starts a machine that is `shutdown` or `crashed` again, on the files it has. Failed, it is as it was.
   * @throws as `launch`; `not-found`; `conflict` where it runs
   */
  start(id: string, changes?: MachineChanges, signal?: AbortSignal): Promise<void>
  /** Every machine that has files here, running or not. One whose record cannot be read is `crashed`, with that as its reason. */
  list(): Promise<readonly FoundMachine[]>
  /** @throws ServiceError `not-found`; `corrupt`, as from all but `remove`, where its record cannot be read */
  show(id: string): Promise<FoundMachine>
  /**
   * The power button, and after `graceMs` the plug. Settles when the machine is `shutdown`. One that is paused cannot feel the
   * button: its plug is pulled. One that has crashed counts as `shutdown` from now on.
   * @param graceMs 0: the plug at once
   * @throws ServiceError `not-found`
   */
  stop(id: string, graceMs: number): Promise<void>
  /**
   * Turns the machine off by its power button and on again; after `graceMs`, or where it is paused, by the reset button. The
   * process stays. Settles when the guest starts anew.
   * @param graceMs 0: the reset button at once
   * @throws ServiceError `not-found`; `conflict` where it does not run
   */
  reboot(id: string, graceMs: number): Promise<void>
  /** Processors stand still, memory stays. @throws ServiceError `not-found`; `conflict` where it is not running */
  pause(id: string): Promise<void>
  /** @throws ServiceError `not-found`; `conflict` where it is not paused */
  resume(id: string): Promise<void>
  /**
   * What the guest wrote to its first serial port since its files were made, over all its starts: the newest `bytes`. How far
   * back that reaches is bounded by the adapter.
   * @throws ServiceError `not-found`
   */
  consoleLog(id: string, bytes: number): Promise<Uint8Array>
  /**
   * The first serial port, both ways. The log goes on beside it. One at a time: a newer one ends the older. Ends when the machine
   * goes off, or the hypervisor is closed.
   * @throws ServiceError `not-found`; `conflict` where it does not run
   */
  serial(id: string): Promise<Duplex>
  /**
   * Stops the machine where it runs and deletes its files; a launch or start under way is cut short. Removing what is not there
   * succeeds.
   */
  remove(id: string): Promise<void>
  /**
   * @param listener told of each change of power, asked for or not: a guest's own poweroff, a crash. It must not throw
   * @returns ends it
   */
  watch(listener: (machine: FoundMachine) => void): () => void
  /** Lets go of all machines, which run on. Calls under way end in `cancelled`: a launch of them leaves nothing. */
  close(): Promise<void>
}

/** Nova's words. `crashed`: the process ended otherwise than by a shutdown. */
export type PowerState = 'running' | 'paused' | 'shutdown' | 'crashed'

export interface FoundMachine {
  readonly id: string
  readonly power: PowerState
  /** Why it crashed, in the process's own last words where it had any; why it is paused where nobody asked for that; null otherwise. */
  readonly reason: string | null
  /** Names of the disks that it has, or, where it cannot be asked, may have; in order of boot. */
  readonly disks: readonly string[]
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
  /** Whether UEFI can be told to start signed systems only. */
  readonly secureBoot: boolean
  /** Processors and memory of the host. */
  readonly cpus: number
  readonly memoryBytes: number
  /** Processors that one machine may have. */
  readonly maxCpus: number
}

export interface MachineSpec {
  /** UUID of the instance; the guest sees it as its system UUID. */
  readonly id: string
  /** For people: in the process list and in the guest's DMI data. At most 255 characters; anything. */
  readonly name: string
  readonly cpus: number
  readonly memoryBytes: number
  readonly hardware: Hardware
  readonly disks: readonly MachineDisk[]
  readonly networks: readonly MachineNetwork[]
  /** Cloud-init's NoCloud data, which the guest finds on a small CD-ROM; absent: none, or the disc that `memory` comes with. */
  readonly seed?: SeedFiles
  /**
   * The guest does not start but goes on from here, on disks whose content is of the same moment; the machine must be as it was. The
   * guest keeps what it knows: its UUID, its addresses, its time.
   */
  readonly memory?: MemoryState
}

/** What may differ from one start to the next. */
export interface MachineChanges {
  /** Where the base or the store of each disk is to be had now, by disk name; of disks that are not named it is where it was. */
  readonly addresses?: Readonly<Record<string, DiskAddress>>
  /** As in `MachineSpec`, with the disc that the machine has. */
  readonly memory?: MemoryState
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
  /** `root`, or a volume's id: letters, digits and `-`, at most 40. */
  readonly name: string
  /** Of the disk that the guest sees, a multiple of 512; its base may be smaller: zeros follow. */
  readonly bytes: number
  /** Read where the guest has not written; absent: zeros. Never written. */
  readonly base?: DiskAddress
  /**
   * What the guest writes goes straight there, and so do its flushes and what it throws away; nothing of it is on this host. It has
   * no base, and its bytes are at least these.
   */
  readonly store?: DiskAddress
  /** What the guest reads as the disk's serial number; at most 20 characters. */
  readonly serial: string
}

/** An NBD export. Its name is a secret. */
export interface DiskAddress {
  readonly socketPath: string
  readonly exportName: string
}

/**
 * A network of the machine's own, in user mode: the guest reaches out, and named ports of it are reached from the host. Or a bridge of the
 * host, by which it is as any machine in that network; nothing is forwarded then.
 */
export interface MachineNetwork {
  /** `52:54:00:…` */
  readonly mac: string
  readonly forwards: readonly PortForward[]
  /** The guest reaches nobody by itself, neither this host nor what lies beyond; forwarded ports lead to it all the same. */
  readonly isIsolated?: boolean
  /** Name of the bridge. */
  readonly bridge?: string
}
export interface PortForward {
  readonly protocol: 'tcp' | 'udp'
  readonly hostAddress: string
  readonly hostPort: number
  readonly guestPort: number
}
