import { type ErrorCode, type ErrorDetails, isServiceError, ServiceError } from '../../../base/errors.ts'
import type { FoundMachine, HypervisorAbilities } from '../hypervisor.ts'
import type { MachineHost } from '../machine-host.ts'

/**
 * What a service and the agent of a host say to each other. Each call is a connection: the service says what is to be done, the agent may
 * ask for what the call needs (`Question`), says how far it is, and ends with an answer. The connection's end cuts short what can be cut
 * short. Memory travels on a connection of its own, so that a word is never behind it.
 */
export const PROTOCOL = 2

/** Calls that are an answer to some values, and no more. */
export const plainCalls = [
  'list',
  'show',
  'stop',
  'reboot',
  'pause',
  'resume',
  'consoleLog',
  'remove',
  'assertResumable',
  'rebase',
  'attach',
  'detach',
  'receive',
  'withdraw',
  'specOf',
] as const satisfies readonly (keyof MachineHost)[]
export type PlainCall = (typeof plainCalls)[number]
/** Calls that their caller may cut short, the first of whose values is the machine. */
export const longCalls = [
  'launch',
  'start',
  'seal',
  'hydrate',
  'saveMemory',
  'migrateTo',
] as const satisfies readonly (keyof MachineHost)[]
export type LongCall = (typeof longCalls)[number]

/** What an agent asks its caller for. `memory`: the stream to go on from; `sink`: to take one; `still`: to do what is to be done now. */
export type Question = 'memory' | 'sink' | 'still'

/** The first word of each connection. */
export type Opening =
  | { readonly say: PlainCall; readonly values: readonly unknown[] }
  | { readonly say: LongCall; readonly values: readonly unknown[]; readonly key: string; readonly hasMoment?: boolean }
  | { readonly say: 'serial' | 'openLayer'; readonly values: readonly unknown[] }
  | { readonly say: 'watch' }
  /** Memory, to or from the call of that key. */
  | { readonly say: 'stream'; readonly key: string }

export interface About {
  readonly protocol: number
  readonly type: string
  /** Null: this host can run no machines. */
  readonly abilities: HypervisorAbilities | null
  readonly problem: string | null
  /** Of what has been told by now. */
  readonly told: number
}

/** To those who watch; a frame without it only says that the agent is alive. */
export interface Told {
  readonly machine: FoundMachine
  readonly told: number
}

export interface Failure {
  readonly code: ErrorCode
  readonly message: string
  readonly details: ErrorDetails
  /** It is what the caller's own part of the call failed with. */
  readonly isYours: boolean
}

/** What the caller's part of a call failed with; what it was, the caller knows. */
export class CallerFailed extends Error {
  override readonly name = 'CallerFailed'
}

/** @param onBug told of what is no failure that a caller can act on */
export function failureOf(error: unknown, onBug: (error: unknown) => void): Failure {
  if (isServiceError(error)) return { code: error.code, message: error.message, details: error.details, isYours: false }
  const isYours = error instanceof CallerFailed
  if (!isYours) onBug(error)
  return { code: 'unavailable', message: 'The agent of the host failed; see its log.', details: {}, isYours }
}

export const errorOf = ({ code, message, details }: Failure): ServiceError => new ServiceError(code, message, details)
