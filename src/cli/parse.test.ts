import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { command } from './command.ts'
import { UsageError } from './exit-codes.ts'
import { nearest, parseWords } from './parse.ts'

const sample = command({
  name: 'thing make',
  summary: 'Make a thing',
  arguments: { name: { help: 'its name' }, rest: { help: 'more', many: true, optional: true } },
  options: {
    minDisk: { type: 'count', value: 'GB', help: 'disk', most: 100 },
    tag: { type: 'list', value: 'TAG', help: 'tag' },
    kind: { type: 'choice', choices: ['a', 'b'], help: 'kind' },
    loud: { type: 'flag', help: 'noise' },
  },
  examples: [],
  exits: [],
  run: async () => 0,
})

test('options may stand anywhere, with their value after a space or an equals sign', () => {
  const { input, json } = parseWords(sample, ['--min-disk=5', 'one', '--json', '--tag', 'x', '--tag=y', 'two', '--loud'])
  assert.deepEqual({ ...input }, { json: true, loud: true, tag: ['x', 'y'], minDisk: 5, name: 'one', rest: ['two'] })
  assert.equal(json, true)
})

test('after two hyphens everything is an argument', () => {
  assert.deepEqual(parseWords(sample, ['one', '--', '--loud']).input.rest, ['--loud'])
})

const refused: readonly [string, readonly string[], RegExp][] = [
  ['a missing argument', [], /NAME is missing/],
  ['an unknown option', ['x', '--tga', 'y'], /did you mean --tag\?/],
  ['an option without its value', ['x', '--tag'], /--tag needs a value/],
  ['a value for a flag', ['x', '--loud=yes'], /takes no value/],
  ['a word outside the choices', ['x', '--kind', 'c'], /takes a, b; not "c"/],
  ['a number out of range', ['x', '--min-disk', '101'], /from 0 to 100/],
  ['a number that is none', ['x', '--min-disk', '0x5'], /whole number/],
  ['an option given twice', ['x', '--kind', 'a', '--kind', 'b'], /given twice/],
  ['an escape sequence in its answer', ['x', '--\x1b[2J'], /no option --\\x1b\[2J/],
]
for (const [name, words, says] of refused) {
  test(`the command line refuses ${name}`, () => {
    assert.throws(
      () => parseWords(sample, words),
      (error) => error instanceof UsageError && says.test(error.message),
    )
  })
}

test('any words are understood or refused by a UsageError', () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.string(), fc.constantFrom('--tag', '--loud', '--', '-', '--min-disk=1', '__proto__'))),
      (words) => {
        try {
          parseWords(sample, words)
        } catch (error) {
          assert.ok(error instanceof UsageError, String(error))
        }
      },
    ),
  )
})

test('nearest proposes only what is near', () => {
  assert.equal(nearest('lst', ['list', 'show']), 'list')
  assert.equal(nearest('frobnicate', ['list', 'show']), undefined)
})
