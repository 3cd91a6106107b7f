import { spawn } from 'node:child_process'

const MAX_SAID_BYTES = 4096

/** Runs a program of the system that finds an open file as its descriptor 3. `status` is null where there is no such program, or a signal ended it. */
export function runWithFile(
  program: string,
  words: readonly string[],
  fd: number,
): Promise<{ readonly status: number | null; readonly said: string }> {
  return new Promise((done) => {
    const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'pipe', fd], env: { ...process.env, LC_ALL: 'C' } })
    let said = ''
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      if (said.length < MAX_SAID_BYTES) said += text
    })
    child.on('error', () => done({ status: null, said: '' }))
    child.on('close', (status) => done({ status, said: said.trim() }))
  })
}
