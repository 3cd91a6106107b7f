import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Passwords, readablePassword } from './passwords.ts'

const cost = { cost: 16, blockSize: 8, parallel: 1 }

test('a password matches its own hash and no other', async () => {
  const passwords = new Passwords({ cost })
  const text = fc.string({ minLength: 1, maxLength: 100, unit: 'binary' })
  await fc.assert(
    fc.asyncProperty(text, text, async (right, other) => {
      const hash = await passwords.hash(right)
      assert.equal(await passwords.verify(right, hash), true)
      if (other.normalize('NFC') !== right.normalize('NFC')) assert.equal(await passwords.verify(other, hash), false)
    }),
    { numRuns: 30 },
  )
})

test('the hash carries its cost, so that a later default does not lock anybody out', async () => {
  const hash = await new Passwords({ cost: { cost: 32, blockSize: 4, parallel: 2 } }).hash('old')
  assert.match(hash, /^scrypt\$32\$4\$2\$[\w-]{22}\$[\w-]{43}$/)
  assert.equal(await new Passwords({ cost }).verify('old', hash), true)
})

test('the same password has another hash each time', async () => {
  const passwords = new Passwords({ cost })
  assert.notEqual(await passwords.hash('same'), await passwords.hash('same'))
})

test('nobody matches a user without a password, and the work is done all the same', async () => {
  const passwords = new Passwords({ cost })
  assert.equal(await passwords.verify('', undefined), false)
  assert.equal(await passwords.verify('anything', null), false)
})

test('a hash in a form that we do not write is reported, not taken for a wrong password', async () => {
  const passwords = new Passwords({ cost })
  for (const hash of ['', 'plain', 'scrypt$16$8$1$c2FsdA$', 'bcrypt$16$8$1$c2FsdA$aGFzaA']) {
    await assert.rejects(passwords.verify('x', hash), { code: 'corrupt' })
  }
})

test('of a flood, as many wait as may wait and the rest is told to come again', async () => {
  const passwords = new Passwords({ cost, running: 1, waiting: 5, waitingPerAddress: 3 })
  const fromOne = Array.from({ length: 100 }, () => passwords.verify('guess', null, '192.0.2.1'))
  const fromOther = Array.from({ length: 100 }, () => passwords.verify('guess', null, '192.0.2.2'))
  const settled = await Promise.allSettled([...fromOne, ...fromOther])
  const served = (from: number) => settled.slice(from, from + 100).filter(({ status }) => status === 'fulfilled').length
  assert.equal(served(0), 4, 'one at work and three waiting')
  assert.equal(served(100), 2, 'the other address still finds room')
  const refused = settled.find(({ status }) => status === 'rejected') as PromiseRejectedResult
  assert.equal(refused.reason.code, 'too-many-requests')
  assert.equal(await passwords.verify('later', await passwords.hash('later')), true, 'and afterwards there is room again')
})

test('a made-up password can be read out: five groups of five, without look-alikes', () => {
  const passwords = new Set(Array.from({ length: 100 }, readablePassword))
  assert.equal(passwords.size, 100)
  for (const password of passwords) assert.match(password, /^[a-km-np-z2-9]{5}(-[a-km-np-z2-9]{5}){4}$/)
})
