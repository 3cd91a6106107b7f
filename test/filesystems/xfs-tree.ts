import { execFileSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdirSync, openSync, rmSync, symlinkSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'

/** What XFS keeps in a way of its own: each form of a fork, with a tree of two levels and more. */
export function fillXfs(root: string, blockBytes: number, pieces: number): void {
  const at = (name: string) => join(root, name)
  const file = openSync(at('of many pieces'), 'w')
  for (let index = 0; index < pieces; index += 1)
    writeSync(file, Buffer.alloc(blockBytes, `${index}`), 0, undefined, index * 2 * blockBytes)
  ftruncateSync(file, (pieces * 2 + 5) * blockBytes - 77)
  closeSync(file)
  execFileSync('fallocate', ['-l', '2000000', at('never written')])
  const partly = openSync(at('never written'), 'r+')
  writeSync(partly, Buffer.from('but here'), 0, undefined, 999_999)
  closeSync(partly)
  execFileSync('cp', ['--reflink=auto', at('of many pieces'), at('a copy that shares')])
  const shared = openSync(at('a copy that shares'), 'r+')
  writeSync(shared, Buffer.from('but not here'), 0, undefined, 5 * blockBytes)
  closeSync(shared)
  symlinkSync('far/'.repeat(255), at('a long link'))
  for (const [count, bytes] of [
    [3, 20],
    [40, 30],
    [400, 200],
    [6, 60_000],
  ] as const) {
    const path = at(`with ${count} attributes of ${bytes}`)
    writeFileSync(path, '')
    setAttributes(path, count, bytes)
  }
  execFileSync('setfattr', ['-n', 'trusted.one', '-v', 'its value', at('a long link'), '-h'])
  execFileSync('setfattr', ['-n', 'security.two', '-v', 'its value', at('of many pieces')])
  mkdirSync(at('inherits'))
  execFileSync('setfacl', ['-m', 'd:u:5:rwx,d:g:6:r,u:7:x', at('inherits')])
  mkdirSync(at('large'))
  for (let index = 0; index < 1500; index += 1) writeFileSync(at(`large/${'name '.repeat(1 + (index % 30))}${index}`), '')
  for (let index = 0; index < 1500; index += 1)
    if (index % 700 > 300) rmSync(at(`large/${'name '.repeat(1 + (index % 30))}${index}`))
}

function setAttributes(path: string, count: number, bytes: number): void {
  const lines = Array.from({ length: count }, (_, index) => `user.name-${index}="${'v'.repeat(bytes - (index % 7))}"`)
  execFileSync('setfattr', ['--restore=-'], { input: `# file: ${path.slice(1)}\n${lines.join('\n')}\n`, cwd: '/' })
}
