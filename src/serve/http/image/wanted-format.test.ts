import assert from 'node:assert/strict'
import { test } from 'node:test'
import { wantedFormat } from './wanted-format.ts'

test('the query says the format, and how it is written', () => {
  assert.deepEqual(wantedFormat({ format: 'vmdk', subformat: 'streamOptimized' }, 'application/x-qemu-disk').wanted, {
    format: 'vmdk',
    subformat: 'streamOptimized',
  })
  assert.deepEqual(wantedFormat({ format: ['raw', 'vhd'] }, undefined).wanted, { format: 'vhd', subformat: undefined })
  assert.throws(() => wantedFormat({ subformat: 'zstd' }, undefined), { code: 'invalid-request', message: /format=/ })
})

const accepted: readonly (readonly [string | undefined, string | undefined, string])[] = [
  [undefined, undefined, 'application/octet-stream'],
  ['*/*', undefined, 'application/octet-stream'],
  ['text/html, image/png', undefined, 'application/octet-stream'],
  ['application/x-qemu-disk', 'qcow2', 'application/x-qemu-disk'],
  ['application/x-qemu-disk;q=0.5, application/x-VHD-disk; q=0.7', 'vhd', 'application/x-vhd-disk'],
  ['application/octet-stream, application/x-qemu-disk;q=0.5', undefined, 'application/octet-stream'],
  ['application/x-qemu-disk, */*;q=0.1', 'qcow2', 'application/x-qemu-disk'],
  ['application/x-qemu-disk;q=0', undefined, 'application/octet-stream'],
  ['application/x-qemu-disk;q=x', undefined, 'application/octet-stream'],
  [',;,,q=1', undefined, 'application/octet-stream'],
]
for (const [accept, format, contentType] of accepted) {
  test(`Accept: ${accept} is ${format ?? 'as it is kept'}`, () => {
    const negotiated = wantedFormat({}, accept)
    assert.deepEqual([negotiated.wanted?.format, negotiated.contentType], [format, contentType])
  })
}
