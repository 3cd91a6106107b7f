import { type RuleId, rules } from './rules.ts'

/** From the least to the worst. `high`: it gives a secret away, or lets somebody in. */
export const levels = ['info', 'low', 'medium', 'high'] as const
export type Level = (typeof levels)[number]

/** Whether `level` is `from` or worse. */
export const isAtLeast = (level: Level, from: Level): boolean => levels.indexOf(level) >= levels.indexOf(from)

/** Something that an image should not hold when others start machines from it. Strings are the guest's: to be shown inert. */
export interface Finding {
  /** Stable, for programs: docs/findings.md has each. */
  readonly rule: RuleId
  readonly level: Level
  /** On the disk; null where it is no file. */
  readonly path: string | null
  /** What is there, a clause. Never the secret: its kind, and where it is random a fingerprint of it. */
  readonly what: string
  /** What to do. */
  readonly remedy: string
}

export interface Findings {
  /** The worst first, then by rule and path. */
  readonly findings: readonly Finding[]
  /** What could not be looked at or was left out, a sentence each. */
  readonly notes: readonly string[]
  /** False where something could not be looked at: then no findings does not mean that there is nothing. */
  readonly isComplete: boolean
  /** How much was looked at. */
  readonly looked: { readonly files: number; readonly readFiles: number; readonly readBytes: number }
}

export const findingOf = (rule: RuleId, path: string | null, what: string, level: Level = rules[rule].level): Finding => ({
  rule,
  level,
  path,
  what,
  remedy: rules[rule].remedy,
})
