import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseOsRelease } from './os-release.ts'

test('an os-release is read as a shell would, and runs nothing', () => {
  const text = [
    '# comment',
    'ID=debian',
    'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"',
    'NAME=\'single $HOME "quoted"\' # and more',
    'VERSION="say \\"12\\" for \\$5 in C:\\\\new"',
    'VERSION_ID=$(reboot)',
    'BARE=a\\ b',
    'ID=debian2',
    'not an assignment',
    'OPEN="never closed',
    '  INDENTED=yes\r',
  ].join('\n')
  assert.deepEqual(Object.fromEntries(parseOsRelease(text)), {
    ID: 'debian2',
    PRETTY_NAME: 'Debian GNU/Linux 12 (bookworm)',
    NAME: 'single $HOME "quoted"',
    VERSION: 'say "12" for $5 in C:\\new',
    VERSION_ID: '$(reboot)',
    BARE: 'a b',
    OPEN: 'never closed',
    INDENTED: 'yes',
  })
})

test('any text is read, and no value is long', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 3000 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
      (text) => {
        for (const value of parseOsRelease(`ID="${text}`).values()) assert.ok(value.length <= 1024)
      },
    ),
  )
})
