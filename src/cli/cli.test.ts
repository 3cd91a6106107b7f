import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type CliWorld, runCli } from './cli.ts'
import { allCommands, commandLoaders } from './commands.ts'
import { completionScript } from './completion-script.ts'
import { renderDocs } from './docs.ts'
import type { Environment } from './output.ts'

const commands = await allCommands()

function world(environment: Environment = {}, isTerminal = false): CliWorld & { readonly said: { out: string; err: string } } {
  const said = { out: '', err: '' }
  const sink = (name: 'out' | 'err') => ({
    write(text: string) {
      said[name] += text
    },
    isTerminal,
    columns: 80,
  })
  const home = mkdtempSync(join(tmpdir(), 'imprint-cli-'))
  return {
    out: sink('out'),
    err: sink('err'),
    environment: { HOME: home, ...environment },
    signal: new AbortController().signal,
    said,
  }
}
const wiring = { serve: async () => 0, serveAgent: async () => 0 }

test('every command stands under its own name and has a summary and an example', () => {
  for (const [at, name] of Object.keys(commandLoaders).entries()) {
    const one = commands[at]!
    assert.equal(one.name, name)
    assert.ok(!one.summary.endsWith('.'), name)
    assert.ok(one.examples.length > 0, `${name} has no example`)
    for (const [line] of one.examples) assert.ok(line.includes('imprint'), line)
  }
})

test('docs/cli.md is what the commands say of themselves', () => {
  const written = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8')
  assert.equal(written, renderDocs(commands), 'write it again: node src/cli/docs.ts > docs/cli.md')
})

for (const { name } of commands) {
  test(`imprint ${name} --help shows usage, options, examples and exit statuses`, async () => {
    const at = world()
    assert.equal(await runCli([...name.split(' '), '--help'], wiring, at), 0)
    for (const part of [`Usage: imprint ${name}`, '--json', 'Examples:', 'Exit status:'])
      assert.ok(at.said.out.includes(part), part)
  })
}

test('imprint serve hands over its flags, and its help shows every default', async () => {
  const given: unknown[] = []
  const serve = async (...all: unknown[]) => {
    given.push(...all)
    return 0
  }
  assert.equal(await runCli(['serve', '--listen', '127.0.0.1:0', '--config', 'x.json'], { ...wiring, serve }, world()), 0)
  assert.deepEqual(given, [{ listen: '127.0.0.1:0' }, 'x.json'])
  const at = world()
  await runCli(['serve', '--help'], wiring, at)
  assert.match(at.said.out, /127\.0\.0\.1:9797/)
  assert.match(at.said.out, /1\.0 TiB/)
})

const wrong: readonly [string, readonly string[], number, RegExp][] = [
  ['an unknown command', ['imag'], 2, /did you mean image\?/],
  ['an unknown command of a group', ['image', 'lst'], 2, /did you mean image list\?/],
  ['a wrong option', ['image', 'list', '--limit', 'x'], 2, /whole number/],
  ['nobody logged in', ['image', 'list'], 4, /imprint login http:\/\/127\.0\.0\.1:9797/],
  ['an address that is none', ['login', 'ftp://x', '--user', 'a', '--password-stdin'], 1, /no address of a service/],
]
for (const [name, argv, status, says] of wrong) {
  test(`${name} is told on stderr, with its exit status and nothing on stdout`, async () => {
    const at = world()
    assert.equal(await runCli(argv, wiring, at), status)
    assert.match(at.said.err, says)
    assert.equal(at.said.out, '')
  })
}

test('with --json an error is a document on stderr', async () => {
  const at = world()
  assert.equal(await runCli(['image', 'list', '--json'], wiring, at), 4)
  assert.equal(JSON.parse(at.said.err).error.code, 'unauthenticated')
})

test('colour is for terminals that want it', async () => {
  for (const [environment, isTerminal, coloured] of [
    [{}, true, true],
    [{}, false, false],
    [{ NO_COLOR: '1' }, true, false],
    [{ TERM: 'dumb' }, true, false],
  ] as const) {
    const at = world(environment, isTerminal)
    await runCli(['image', 'list'], wiring, at)
    assert.equal(at.said.err.includes('\x1b['), coloured, JSON.stringify({ environment, isTerminal }))
  }
})

for (const shell of ['bash', 'zsh', 'fish'] as const) {
  const exists = spawnSync(shell, ['-c', 'true']).status === 0
  test(`the completion for ${shell} is a script that ${shell} reads`, {
    skip: exists ? false : `${shell} is not installed`,
  }, () => {
    const path = join(mkdtempSync(join(tmpdir(), 'imprint-completion-')), 'script')
    writeFileSync(path, completionScript(shell, commands))
    execFileSync(shell, ['-n', path])
  })
}

const bashCases: readonly [line: string, has: string, hasNot: string][] = [
  ['imprint im', 'image', 'login'],
  ['imprint image a', 'add', 'list'],
  ['imprint image list --v', '--visibility', '--long'],
  ['imprint image list --visibility p', 'public', 'shared'],
  ['imprint export ', 'list', '--long'],
  ['imprint export l', 'list', 'end'],
  ['imprint export --s', '--seconds', 'list'],
  ['imprint export debian --s', '--seconds', 'list'],
  ['imprint export list --', '--json', '--seconds'],
  ['imprint login --pass', '--password-stdin', '--user'],
]
for (const [line, has, hasNot] of bashCases) {
  test(`bash completes "${line}" with ${has}`, () => {
    const words = line.split(' ')
    const script = `${completionScript('bash', commands)}
COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}; _imprint; printf '%s\\n' "\${COMPREPLY[@]}"`
    const offered = execFileSync('bash', ['-c', script], { encoding: 'utf8' }).split('\n')
    assert.ok(offered.includes(has), offered.join(' '))
    assert.ok(!offered.includes(hasNot))
  })
}
