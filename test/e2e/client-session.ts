/** Runs the command-line clients of OpenStack as one account would, and reads what they print. */
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import type { Account } from '../peers/identity-client.ts'
import { runClient } from './warm-clients.ts'

const PATIENCE_MS = 180_000
const LOOK_AGAIN_MS = 200

type Words = TemplateStringsArray
type Value = string | number

export interface ClientSession {
  /** Runs the command; fails where it exits with other than 0; returns what it printed. */
  ok(words: Words, ...values: Value[]): Promise<string>
  /** Runs an `openstack` command with `-f json`; returns what that parses to. */
  json<T = Record<string, unknown>>(words: Words, ...values: Value[]): Promise<T>
  /** Runs a `glance` command; returns the rows of its table by their first column. */
  table(words: Words, ...values: Value[]): Promise<Readonly<Record<string, string>>>
  /** Runs the command; fails where it exits with 0; returns what it printed. */
  refused(words: Words, ...values: Value[]): Promise<string>
}

/** Folder: where clients keep what they cache, so that none of it is the user's. */
export function clientSession(identityUrl: string, account: Account, folder: string): ClientSession {
  const env = {
    ...Object.fromEntries(Object.keys(process.env).flatMap((name) => (name.startsWith('OS_') ? [[name, undefined]] : []))),
    OS_AUTH_URL: identityUrl,
    OS_USERNAME: account.user,
    OS_PASSWORD: account.password,
    OS_PROJECT_NAME: account.project,
    OS_USER_DOMAIN_NAME: 'Default',
    OS_PROJECT_DOMAIN_NAME: 'Default',
    OS_IDENTITY_API_VERSION: '3',
    OS_REGION_NAME: 'RegionOne',
    HOME: folder,
    COLUMNS: '400', // a table is not folded
    PYTHONWARNINGS: 'ignore',
    no_proxy: '127.0.0.1',
  }
  const run = (line: readonly string[]) => runClient(line, env, folder)
  const succeeds = async (line: readonly string[]) => {
    const { code, stdout, stderr } = await run(line)
    assert.equal(code, 0, `${line.join(' ')}\nended with ${code}: ${stderr}${stdout}`)
    return stdout
  }
  return {
    ok: (words, ...values) => succeeds(split(words, values)),
    json: async (words, ...values) => JSON.parse(await succeeds([...split(words, values), '-f', 'json'])),
    table: async (words, ...values) => readTable(await succeeds(split(words, values))),
    async refused(words, ...values) {
      const line = split(words, values)
      const { code, stdout, stderr } = await run(line)
      assert.notEqual(code, 0, `${line.join(' ')}\nsucceeded: ${stdout}`)
      return stderr + stdout
    },
  }
}

/** Asks again and again until the answer is as wished, for some minutes at the most. @returns the last answer, whatever it is */
export async function askUntil<T>(holds: (answer: T) => boolean, ask: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const answer = await ask()
    if (holds(answer) || performance.now() > deadline) return answer
    await pause(LOOK_AGAIN_MS)
  }
}

/** `image show ${id}` → arguments: the template is cut at blanks, a value stays whole. */
function split(words: Words, values: readonly Value[]): string[] {
  const line: string[] = []
  words.forEach((text, index) => {
    const parts = text.split(/\s+/)
    const glued = line.length > 0 && !/^\s/.test(text) && index > 0
    parts.forEach((part, position) => {
      if (position === 0 && glued) line.push(line.pop() + part)
      else if (part) line.push(part)
    })
    if (index < values.length) {
      if (text === '' || /\s$/.test(text)) line.push(String(values[index]))
      else line.push(line.pop() + String(values[index]))
    }
  })
  return line
}

/** A cell that is folded goes on in the rows below, whose first cell is empty. A table of one column maps names to themselves. */
function readTable(text: string): Record<string, string> {
  const rows = text.split('\n').filter((line) => line.startsWith('|'))
  const found: Record<string, string> = {}
  let last = ''
  for (const row of rows.slice(1)) {
    const [first = '', ...rest] = row.slice(1, row.lastIndexOf('|')).split('|')
    const key = first.trim()
    const value = rest.length > 0 ? rest.join('|').trim() : key
    if (key) found[key] = value
    else found[last] += value
    last = key || last
  }
  return found
}
