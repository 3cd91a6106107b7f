import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'

export interface CommandResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}
export interface CommandOptions {
  readonly cwd?: string
  /** Added to this process's environment; `undefined` removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** What it reads; nothing where absent. */
  readonly input?: string | Uint8Array
  /** A file descriptor for it to read from instead. */
  readonly stdin?: number
  readonly timeoutMs?: number
}

/** Runs a program to its end. Does not throw for its exit code. */
export async function command(line: readonly [string, ...string[]], options: CommandOptions = {}): Promise<CommandResult> {
  const [program, ...args] = line
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: [options.stdin ?? (options.input === undefined ? 'ignore' : 'pipe'), 'pipe', 'pipe'],
    timeout: options.timeoutMs ?? 600_000,
  })
  const output = { stdout: '', stderr: '' }
  child.stdout!.setEncoding('utf8').on('data', (text) => (output.stdout += text))
  child.stderr!.setEncoding('utf8').on('data', (text) => (output.stderr += text))
  child.stdin?.on('error', () => {}) // it may end without reading all
  child.stdin?.end(options.input)
  const [code, signal] = await once(child, 'close')
  return { code: code ?? 128, stdout: output.stdout, stderr: output.stderr + (signal ? `\nended by ${signal}` : '') }
}

/** The same, and its output; throws where it fails. */
export async function must(line: readonly [string, ...string[]], options: CommandOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await command(line, options)
  if (code !== 0) throw new Error(`${line.join(' ')} ended with ${code}:\n${(stderr + stdout).slice(-3000)}`)
  return stdout
}

/** The first of these programs that is not installed, as the reason of a skip; `false` where all are here. */
export function missingTool(...programs: string[]): string | false {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin']
  const missing = programs.find((program) => !folders.some((folder) => existsSync(join(folder, program))))
  return missing === undefined ? false : `${missing} is not installed`
}
