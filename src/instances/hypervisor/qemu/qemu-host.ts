import type { FoundMachine } from '../hypervisor.ts'
import type { Firmware } from './firmware.ts'
import type { ProcessUser } from './process.ts'

/** What the machines of a host share. */
export interface QemuHost {
  readonly root: string
  readonly program: string
  readonly qemuVersion: string
  readonly accelerator: 'kvm' | 'tcg'
  readonly firmwares: readonly Firmware[]
  readonly user: ProcessUser | undefined
  /** A control group that is divided among the machines. */
  readonly cgroup: string | undefined
  /** Aborted when the hypervisor is closed. */
  readonly closing: AbortSignal
  /** Tells those who watch. */
  readonly tell: (machine: FoundMachine) => void
  /** Of what goes wrong when nobody waits for it. */
  readonly onProblem: (error: unknown) => void
}
