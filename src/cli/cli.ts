import { isServiceError, ServiceError } from '../base/errors.ts'
import type { CliWiring, Command, Context } from './command.ts'
import { commandLoaders } from './commands.ts'
import { exitCodeOf, UsageError } from './exit-codes.ts'
import { type Environment, Output, type Sink, streamSink } from './output.ts'
import { nearest, parseWords } from './parse.ts'
import { safeText } from './safe-text.ts'

/** The world of a run: the process, or what a test puts in its place. */
export interface CliWorld {
  readonly out: Sink
  readonly err: Sink
  readonly environment: Environment
  readonly signal: AbortSignal
}

/**
 * `imprint …`.
 * @param argv what was typed after `imprint`
 * @returns the exit status; docs/cli.md lists them
 */
export async function runCli(argv: readonly string[], wiring: CliWiring, world: CliWorld = processWorld()): Promise<number> {
  const plain = new Output(world.out, world.err, { json: argv.includes('--json'), environment: world.environment })
  try {
    const { name, words } = await findCommand(argv, plain)
    if (name === undefined) return 0
    return await runCommand(await commandLoaders[name]!(), words, wiring, world)
  } catch (error) {
    return report(error, plain)
  }
}

async function runCommand(command: Command, words: readonly string[], wiring: CliWiring, world: CliWorld): Promise<number> {
  const { input, json, help } = parseWords(command, words)
  const out = new Output(world.out, world.err, { json, environment: world.environment })
  if (help) {
    const { commandHelp } = await import('./help.ts')
    out.raw(commandHelp(command))
    return 0
  }
  let close = (): void => {}
  const context: Context = {
    out,
    environment: world.environment,
    signal: world.signal,
    serve: wiring.serve,
    serveAgent: wiring.serveAgent,
    async connect() {
      const { openSession } = await import('./session.ts')
      const session = await openSession(world.environment)
      close = () => session.close()
      return session
    },
  }
  try {
    return await command.run(input as never, context)
  } finally {
    close()
  }
}

/** The command that the first words name; prints a group's page where they stop at a group. */
async function findCommand(
  argv: readonly string[],
  out: Output,
): Promise<{ readonly name?: string; readonly words: readonly string[] }> {
  const words =
    argv[0] === 'help' ? [...argv.slice(1), '--help'] : argv[0] === '--version' ? ['version', ...argv.slice(1)] : [...argv]
  const [first, second] = words
  const names = Object.keys(commandLoaders)
  if (first === undefined || first === '--help' || first === '-h') return showGroup('', out)
  if (names.includes(`${first} ${second}`)) return { name: `${first} ${second}`, words: words.slice(2) }
  if (names.includes(first)) return { name: first, words: words.slice(1) }
  const group = names.filter((name) => name.startsWith(`${first} `))
  if (group.length === 0) {
    const near = nearest(first, [...new Set(names.map((name) => name.split(' ')[0]!))])
    throw new UsageError(`there is no command "${safeText(first)}"${near ? `; did you mean ${near}?` : ''}; see: imprint --help`)
  }
  if (second === undefined || second.startsWith('-')) return showGroup(first, out)
  const near = nearest(`${first} ${second}`, group)
  throw new UsageError(
    `imprint ${first} has no command "${safeText(second)}"${near ? `; did you mean ${near}?` : ''}; see: imprint ${first} --help`,
  )
}

async function showGroup(group: string, out: Output): Promise<{ readonly words: readonly string[] }> {
  const { groupHelp } = await import('./help.ts')
  const names = Object.keys(commandLoaders).filter((name) => group === '' || name.startsWith(`${group} `))
  out.raw(groupHelp(group, await Promise.all(names.map((name) => commandLoaders[name]!()))))
  return { words: [] }
}

/** What went wrong, for a person on stderr; with `--json`, as a document there. */
function report(error: unknown, out: Output): number {
  const code = exitCodeOf(error)
  if (error instanceof UsageError || isServiceError(error)) {
    const details = isServiceError(error)
      ? { code: error.code, message: error.message, details: error.details }
      : { code: 'usage', message: error.message }
    if (out.json) out.event({ error: details })
    else out.error(error.message.split('\n').map(safeText).join('\n'))
    return code
  }
  const system = systemFailure(error)
  if (out.json) out.event({ error: { code: 'failed', message: system ?? String(error) } })
  else out.error(safeText(system ?? `this is a bug in imprint; please report it with this text:`))
  if (system === undefined && !out.json) out.error(String((error as Error)?.stack ?? error))
  return code
}

/** What the operating system refused, in words: `cannot read /etc/shadow: permission denied`. */
function systemFailure(error: unknown): string | undefined {
  const { code, path, message, syscall } = error as NodeJS.ErrnoException
  if (typeof code !== 'string' || !/^E[A-Z0-9]+$/.test(code)) return undefined
  const reasons: Record<string, string> = {
    ENOENT: 'no such file or folder',
    EACCES: 'permission denied',
    EPERM: 'not permitted',
    EISDIR: 'it is a folder',
    ENOSPC: 'the disk is full',
    EEXIST: 'it exists already',
  }
  return path ? `cannot ${syscall ?? 'use'} ${path}: ${reasons[code] ?? message}` : message
}

function processWorld(): CliWorld {
  const interrupted = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    // the second one ends the process at once, as if nobody listened
    process.once(signal, () => interrupted.abort(new ServiceError('cancelled', 'interrupted')))
  }
  return {
    out: streamSink(process.stdout),
    err: streamSink(process.stderr),
    environment: process.env,
    signal: interrupted.signal,
  }
}
