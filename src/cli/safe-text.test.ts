import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import fc from 'fast-check'
import { columnsOf, safeJson, safeText, shellWord } from './safe-text.ts'

const shown: readonly [name: string, text: string, is: string][] = [
  ['clear the screen', '\x1b[2Jgone', '\\x1b[2Jgone'],
  ['C1 control sequence introducer', '\x9b31mred', '\\x9b31mred'],
  ['right-to-left override', 'gpj.\u202eexe', 'gpj.\\u202eexe'],
  ['isolates', '\u2066a\u2069', '\\u2066a\\u2069'],
  ['forged log line', 'a\r\nINFO forged', 'a\\x0d\\x0aINFO forged'],
  ['NUL and DEL', 'a\0b\x7f', 'a\\x00b\\x7f'],
  ['zero width space', 'ad\u200bmin', 'ad\\u200bmin'],
  ['lone surrogate', 'a\ud800b', 'a\\ud800b'],
  ['what people write', 'Debian 12 – größer 日本 🐧', 'Debian 12 – größer 日本 🐧'],
]
for (const [name, text, is] of shown) test(`safeText shows ${name} inert`, () => assert.equal(safeText(text), is))

const steering = /[\p{Cc}\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]/u

test('safeText leaves nothing that steers a terminal in any text', () => {
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => assert.doesNotMatch(safeText(text), steering)))
})

test('safeJson leaves nothing that steers either, and reads back the same', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const json = safeJson({ text })
      assert.doesNotMatch(json, steering)
      assert.deepEqual(JSON.parse(json), { text })
    }),
  )
})

test('columnsOf counts what a terminal shows', () => {
  assert.equal(columnsOf('plain'), 5)
  assert.equal(columnsOf('日本'), 4)
  assert.equal(columnsOf('e\u0301'), 1)
  assert.equal(columnsOf('🐧'), 2)
})

test('a word for a shell is that word to a shell, whatever stands in it', () => {
  assert.equal(shellWord('web-1'), 'web-1')
  const words = ['', 'x;$(id)', "it's `here`", '--all', '~', 'a b', '*', '!x', 'naïve']
  const said = execFileSync('sh', ['-c', words.map((word) => `printf '%s|' ${shellWord(word)}`).join(';')], { encoding: 'utf8' })
  assert.equal(said, words.map((word) => `${word}|`).join(''))
})
