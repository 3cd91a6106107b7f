/** Runs commands in this process and keeps what they say. */
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runCli } from './cli.ts'
import type { Environment } from './output.ts'

export interface Said {
  readonly status: number
  readonly out: string
  readonly err: string
  /** stdout, which must be one JSON document. */
  // biome-ignore lint/suspicious/noExplicitAny: a test looks into what a program would read
  readonly json: any
}
export interface RunOptions {
  readonly environment: Environment
  readonly signal?: AbortSignal
  /** Told of each piece of stderr as it is written. */
  readonly onErr?: (text: string) => void
  readonly isTerminal?: boolean
}

export async function run(words: readonly string[], options: RunOptions): Promise<Said> {
  const said = { out: '', err: '' }
  const isTerminal = options.isTerminal ?? false
  const sink = (name: 'out' | 'err') => ({
    write(text: string) {
      said[name] += text
      if (name === 'err') options.onErr?.(text)
    },
    isTerminal,
    columns: 100,
  })
  const signal = options.signal ?? new AbortController().signal
  const world = { out: sink('out'), err: sink('err'), environment: options.environment, signal }
  const status = await runCli(words, { serve: async () => 0, serveAgent: async () => 0 }, world)
  return {
    status,
    ...said,
    get json() {
      return JSON.parse(said.out)
    },
  }
}

/** A home folder of its own, so that no test sees the login of another. */
export const freshHome = (): string => mkdtempSync(join(tmpdir(), 'imprint-home-'))

/** As the OpenStack clients are told who asks. */
export const userOf = (url: string, user: string, password: string, project: string): Environment => ({
  HOME: freshHome(),
  PATH: process.env.PATH,
  OS_AUTH_URL: `${url}/identity/v3`,
  OS_USERNAME: user,
  OS_PASSWORD: password,
  OS_PROJECT_NAME: project,
})
