/** Runs `imprint` as its own process, on files. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { type CommandOptions, type CommandResult, command } from '../../../test/peers/command.ts'

export const main = fileURLToPath(new URL('../../main.ts', import.meta.url))

export const imprint = (words: readonly string[], options: CommandOptions = {}): Promise<CommandResult> =>
  command([process.execPath, main, ...words], options)

/** Runs one that says nothing wrong. @returns the document on its stdout */
// biome-ignore lint/suspicious/noExplicitAny: a test looks into what a program would read
export async function answer(...words: string[]): Promise<any> {
  const { code, stdout, stderr } = await imprint([...words, '--json'])
  if (code !== 0) throw new Error(`imprint ${words.join(' ')} ended with ${code}: ${stderr}`)
  return JSON.parse(stdout)
}

/** Starts one, and comes back with the first it says on stderr that `until` fits. */
export async function started(words: readonly string[], until: RegExp): Promise<ChildProcess> {
  const child = spawn(process.execPath, [main, ...words], { stdio: ['pipe', 'ignore', 'pipe'] })
  let said = ''
  await new Promise<void>((done, fail) => {
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      said += text
      if (until.test(said)) done()
    })
    child.on('close', () => fail(new Error(`it ended: ${said}`)))
  })
  return child
}

export async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<number | NodeJS.Signals> {
  child.removeAllListeners('close')
  child.kill(signal)
  const [code, by] = await once(child, 'close')
  return code ?? by
}

export const nameForQemu = (format: string): string => (format === 'vhd' ? 'vpc' : format)
