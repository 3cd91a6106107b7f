import { ServiceError } from '../base/errors.ts'

const MAX_ANSWER = 4096

/**
 * Asks on the terminal without showing what is typed.
 * @throws ServiceError `invalid-request` where there is no terminal; `cancelled` on Ctrl-C or Ctrl-D
 */
export const askSecret = (question: string): Promise<string> => ask(question, false, 'give it with --password-stdin')

/** Asks a question whose answer is shown. @throws as `askSecret` */
export const askLine = async (question: string): Promise<string> =>
  (await ask(question, true, 'say it with an option, see --help')).trim()

async function ask(question: string, echoes: boolean, otherwise: string): Promise<string> {
  const { stdin, stderr } = process
  if (!stdin.isTTY) throw new ServiceError('invalid-request', `there is no terminal to ask on; ${otherwise}`)
  stdin.setRawMode(true) // before the question: an answer that comes at once must not be shown by the terminal itself
  stdin.setEncoding('utf8')
  stderr.write(question)
  const answer = Promise.withResolvers<string>()
  let typed: string[] = []
  const onKeys = (text: string): void => {
    for (const key of text) {
      if (key === '\r' || key === '\n') answer.resolve(typed.join(''))
      else if (key === '\x03' || key === '\x04') answer.reject(new ServiceError('cancelled', 'interrupted'))
      else if (key === '\x7f' || key === '\b') {
        if (typed.length > 0 && echoes) stderr.write('\b \b')
        typed = typed.slice(0, -1)
      } else if (key >= ' ' && typed.length < MAX_ANSWER) {
        typed.push(key)
        if (echoes) stderr.write(key)
      }
    }
  }
  const onEnd = (): void => answer.reject(new ServiceError('cancelled', 'the terminal closed'))
  stdin.on('data', onKeys).on('end', onEnd).resume()
  try {
    return await answer.promise
  } finally {
    stdin.off('data', onKeys).off('end', onEnd).pause()
    stdin.setRawMode(false)
    stderr.write('\n')
  }
}

/** The first line of stdin: a password that stands in no argument and no environment. */
export async function readSecretFromStdin(): Promise<string> {
  let text = ''
  process.stdin.setEncoding('utf8')
  for await (const part of process.stdin as AsyncIterable<string>) {
    text += part
    if (text.includes('\n') || text.length > MAX_ANSWER) break
  }
  process.stdin.pause()
  const secret = text.split('\n')[0]!.replace(/\r$/, '')
  if (secret === '' || secret.length > MAX_ANSWER) throw new ServiceError('invalid-request', 'stdin holds no password')
  return secret
}
