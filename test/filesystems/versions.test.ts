import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { compareAlpm } from '../../src/disk/guest/software/versions/alpm.ts'
import { compareApk } from '../../src/disk/guest/software/versions/apk.ts'
import { compareRpm } from '../../src/disk/guest/software/versions/rpm.ts'
import { missingTool } from '../peers/command.ts'
import { numbersOf } from './aged-tree.ts'

const PAIRS = 20_000
const pieces = ['0', '1', '2', '10', '09', '00', 'a', 'b', 'rc', 'Z', '~', '^', '+', '.', '..', '_', 'fc40']

function pairs(seed: number): [string, string][] {
  const random = numbersOf(seed)
  const below = (end: number) => Math.floor(random() * end)
  const part = () => Array.from({ length: 1 + below(5) }, () => pieces[below(pieces.length)]).join('')
  const version = () => `${below(5) === 0 ? `${below(3)}:` : ''}${part()}${below(3) === 0 ? '' : `-${part()}`}`
  return Array.from({ length: PAIRS }, () => {
    const one = version()
    // most pairs are alike: others differ in their first character
    const two = below(2) === 0 ? version() : `${one.slice(0, below(one.length) + 1)}${part()}`
    return [one, two]
  })
}

function sameOrder(compare: (a: string, b: string) => number, all: [string, string][], said: readonly number[]): void {
  assert.equal(said.length, all.length)
  for (const [index, [a, b]] of all.entries()) {
    assert.equal(Math.sign(compare(a, b)), said[index], `${a} ${b}`)
    assert.equal(Math.sign(compare(b, a)) || 0, -said[index]! || 0, `${b} ${a}`)
  }
}

test('parts of versions are ordered as rpm orders them', { skip: missingTool('rpm') }, () => {
  const all = pairs(3).map(([a, b]): [string, string] => [a.replace(/[:-]/g, '.'), b.replace(/[:-]/g, '.')])
  const list = all.map(([a, b]) => `{"${a}","${b}"}`)
  const said: number[] = []
  for (let at = 0; at < list.length; at += 1000) {
    const lua = `local t={${list.slice(at, at + 1000).join(',')}} for i,p in ipairs(t) do t[i]=rpm.vercmp(p[1],p[2]) end print(table.concat(t,' '))`
    const text = execFileSync('rpm', ['--eval', `%{lua:${lua}}`], { encoding: 'utf8', stdio: 'pipe' })
    said.push(...text.trim().split(' ').map(Number))
  }
  sameOrder(compareRpm, all, said)
})

test('whole versions of rpm', () => {
  const ascending = ['1.0~rc1-9', '1.0-1', '1.0-1.fc40', '1.0-2', '1.0^git1-1', '1.0.1-1', '1:0.1-1', '2:0-1']
  for (const [index, older] of ascending.entries())
    for (const newer of ascending.slice(index + 1)) assert.ok(compareRpm(older, newer) < 0, `${older} ${newer}`)
  assert.equal(compareRpm('1.0-3', '1.0'), 0)
  assert.equal(compareRpm('0:1.0-3', '1.0-3'), 0)
  assert.ok(compareRpm(`1.${'9'.repeat(400)}`, `1.1${'0'.repeat(400)}`) < 0)
})

const alpm = `import ctypes, sys
library = ctypes.CDLL('libalpm.so.13')
for line in sys.stdin:
    a, b = line.rstrip('\\n').split(' ')
    r = library.alpm_pkg_vercmp(a.encode(), b.encode())
    print((r > 0) - (r < 0))`

function alpmMissing(): string | false {
  try {
    execFileSync('python3', ['-c', 'import ctypes; ctypes.CDLL("libalpm.so.13")'], { stdio: 'pipe' })
    return false
  } catch {
    return 'python3 or libalpm.so.13 is not installed'
  }
}

test('versions are ordered as pacman orders them', { skip: alpmMissing() }, () => {
  const all = pairs(5)
  const input = all.map((pair) => pair.join(' ')).join('\n')
  const text = execFileSync('python3', ['-c', alpm], { encoding: 'utf8', input })
  sameOrder(compareAlpm, all, text.trim().split('\n').map(Number))
})

test('versions are ordered as apk orders them', () => {
  const ascending = [
    '0.1.0_alpha_pre2',
    '0.1.0_alpha',
    '0.1.0_alpha2',
    '0.1.0_beta',
    '0.1.0_rc3',
    '0.1.0',
    '0.1.0-r1',
    '0.1.0-r10',
    '0.1.0_git20240101',
    '0.1.0_p9',
    '0.1.0_p10-r0',
    '0.1.0a',
    '0.1.0b-r2',
    '0.1.0.1',
    '0.1.3_alpha',
    '0.10',
    '1.00_beta2',
    '1.01.07',
    '1.01.10-r1',
    '1.1',
    '1.1.1',
    '1.2',
    '5b-r9',
    '006',
    '20050718-r1',
    '20050718-r2',
  ]
  for (const [index, older] of ascending.entries()) {
    assert.equal(compareApk(older, older), 0)
    for (const newer of ascending.slice(index + 1)) {
      assert.ok(compareApk(older, newer) < 0, `${older} < ${newer}`)
      assert.ok(compareApk(newer, older) > 0, `${newer} > ${older}`)
    }
  }
  assert.ok(compareApk('1.0', '1.0bc') < 0)
  assert.ok(compareApk('no version', '$(reboot)') <= 0)
})
