import type { SettingName } from '../settings/settings.ts'
import type { ExitCode } from './exit-codes.ts'
import type { Environment, Output } from './output.ts'
import type { Session } from './session.ts'

/** What a shell may offer for a value. */
export type Completes = 'file' | 'folder' | 'none'

export interface ArgumentSpec {
  readonly help: string
  readonly optional?: true
  /** One or more; the last argument only. */
  readonly many?: true
  readonly completes?: Completes
}
export type OptionSpec =
  | { readonly type: 'flag'; readonly help: string }
  | { readonly type: 'text'; readonly help: string; readonly value: string; readonly completes?: Completes }
  | { readonly type: 'choice'; readonly help: string; readonly choices: readonly string[] }
  | { readonly type: 'count'; readonly help: string; readonly value: string; readonly least?: number; readonly most?: number }
  /** May be given several times. */
  | { readonly type: 'list'; readonly help: string; readonly value: string }

type OptionValue<Spec extends OptionSpec> = Spec extends { type: 'flag' }
  ? boolean
  : Spec extends { type: 'list' }
    ? readonly string[]
    : Spec extends { type: 'count' }
      ? number | undefined
      : Spec extends { type: 'choice'; choices: readonly (infer Choice)[] }
        ? Choice | undefined
        : string | undefined
type ArgumentValue<Spec extends ArgumentSpec> = Spec extends { many: true }
  ? readonly string[]
  : Spec extends { optional: true }
    ? string | undefined
    : string

export type Input<Arguments extends Record<string, ArgumentSpec>, Options extends Record<string, OptionSpec>> = {
  readonly [Name in keyof Arguments]: ArgumentValue<Arguments[Name]>
} & { readonly [Name in keyof Options]: OptionValue<Options[Name]> }

/** What this one start shall do; not a setting, for it must not stand in a file. */
export interface ServeOnce {
  /** For a lock that lost its key. */
  readonly resetAdminPassword?: boolean
}

/** What main.ts brings, so that the command line stays below the wiring. */
export interface CliWiring {
  /**
   * Runs the service until it is told to stop.
   * @param flags what the command line set, by setting name, as text
   * @returns the exit status
   */
  readonly serve: (
    flags: Readonly<Partial<Record<SettingName, string>>>,
    configFile: string | undefined,
    once?: ServeOnce,
  ) => Promise<number>
  /** Runs the agent of a host until it is told to stop. */
  readonly serveAgent: (flags: Readonly<Partial<Record<SettingName, string>>>, configFile: string | undefined) => Promise<number>
}

/** What a command may use of the world. */
export interface Context extends CliWiring {
  readonly out: Output
  readonly environment: Environment
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal
  /** The service as the user who logged in. @throws ServiceError `unauthenticated` with the command that logs in */
  connect(): Promise<Session>
}

interface Described {
  /** `image add`: how it is typed. */
  readonly name: string
  /** One line: what it does, a sentence without its full stop. */
  readonly summary: string
  /** Paragraphs under the summary, where one line is not enough. */
  readonly description?: string
  readonly arguments: Readonly<Record<string, ArgumentSpec>>
  readonly options: Readonly<Record<string, OptionSpec>>
  readonly examples: readonly (readonly [line: string, meaning: string])[]
  /** The exit statuses it may end with, beside 0, 1, 2 and 130. */
  readonly exits: readonly ExitCode[]
}

/** A command as the framework holds it: parsing, help, completion and docs/cli.md are made from this one object. */
export interface Command extends Described {
  readonly run: (input: never, context: Context) => Promise<ExitCode>
}

export const command = <const Arguments extends Record<string, ArgumentSpec>, const Options extends Record<string, OptionSpec>>(
  spec: Described & {
    readonly arguments: Arguments
    readonly options: Options
    readonly run: (input: Input<Arguments, Options>, context: Context) => Promise<ExitCode>
  },
): Command => spec

/** `minDisk` → `--min-disk`. */
export const optionName = (key: string): string => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/** Every command has these. */
export const commonOptions = {
  json: { type: 'flag', help: 'print the answer as JSON' },
  help: { type: 'flag', help: 'show this page' },
} as const satisfies Record<string, OptionSpec>
