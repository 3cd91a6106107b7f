import { ServiceError } from '../base/errors.ts'

const MAX_SECRET = 4096

/**
 * Asks on the terminal without showing what is typed.
 * @throws ServiceError `invalid-request` where there is no terminal; `cancelled` on Ctrl-C or Ctrl-D
 */
export async function askSecret(question: string): Promise<string> {
  const { stdin, stderr } = process
  if (!stdin.isTTY) {
    throw new ServiceError('invalid-request', 'there is no terminal to ask for the password on; give it with --password-stdin')
  }
  stderr.write(question)
  stdin.setRawMode(true)
  stdin.setEncoding('utf8')
  try {
    let typed = ''
    for await (const text of stdin as AsyncIterable<string>) {
      for (const key of text) {
        if (key === '\r' || key === '\n') return typed
        if (key === '\x03' || key === '\x04') throw new ServiceError('cancelled', 'interrupted')
        if (key === '\x7f' || key === '\b') typed = [...typed].slice(0, -1).join('')
        else if (key >= ' ' && typed.length < MAX_SECRET) typed += key
      }
    }
    throw new ServiceError('cancelled', 'the terminal closed')
  } finally {
    stdin.setRawMode(false)
    stdin.pause()
    stderr.write('\n')
  }
}

/** Asks a question whose answer is shown. */
export async function askLine(question: string): Promise<string> {
  if (!process.stdin.isTTY)
    throw new ServiceError('invalid-request', 'there is no terminal to ask on; say it with an option, see --help')
  const { createInterface } = await import('node:readline/promises')
  const reader = createInterface({ input: process.stdin, output: process.stderr })
  try {
    return (await reader.question(question)).trim()
  } finally {
    reader.close()
  }
}

/** The first line of stdin: a password that stands in no argument and no environment. */
export async function readSecretFromStdin(): Promise<string> {
  let text = ''
  process.stdin.setEncoding('utf8')
  for await (const part of process.stdin as AsyncIterable<string>) {
    text += part
    if (text.includes('\n') || text.length > MAX_SECRET) break
  }
  process.stdin.pause()
  const secret = text.split('\n')[0]!.replace(/\r$/, '')
  if (secret === '' || secret.length > MAX_SECRET) throw new ServiceError('invalid-request', 'stdin holds no password')
  return secret
}
