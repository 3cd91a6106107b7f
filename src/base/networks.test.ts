import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inNetworks } from './networks.ts'

const cases: readonly [string, string, boolean][] = [
  ['10.0.0.0/8', '10.255.0.1', true],
  ['10.0.0.0/8', '11.0.0.1', false],
  ['10.0.0.0/8', '::ffff:10.1.2.3', true],
  ['192.0.2.7', '192.0.2.7', true],
  ['192.0.2.7', '192.0.2.8', false],
  ['fd00::/8', 'fd12::1', true],
  ['fd00::/8', 'fe80::1', false],
  ['fe80::/10', 'fe80::1%eth0', true],
  ['0.0.0.0/0', '8.8.8.8', true],
  ['0.0.0.0/0', '2001:db8::1', false],
  ['::/0', 'no address', false],
]
for (const [network, address, isIn] of cases) {
  test(`${address} is ${isIn ? '' : 'not '}in ${network}`, () => assert.equal(inNetworks([network])(address), isIn))
}

test('nothing is in no network', () => assert.equal(inNetworks([])('127.0.0.1'), false))

for (const wrong of ['10.0.0.0/33', '10.0.0/8', 'fd00::/129', '10.0.0.0/', '10.0.0.0/8/8', '10.0.0.0/x', 'any', '']) {
  test(`"${wrong}" is no network`, () => assert.throws(() => inNetworks([wrong]), /is no network; networks are written as/))
}
