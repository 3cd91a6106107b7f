import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { MemoryBudget } from './memory-budget.ts'

test('there is never more taken than there is, unless one taker alone wants more', () => {
  const budget = new MemoryBudget(100)
  assert.ok(budget.take(60))
  assert.ok(!budget.take(41))
  assert.ok(budget.take(40))
  budget.give(60)
  budget.give(40)
  assert.ok(budget.take(1000))
  assert.ok(!budget.take(1))
})

test('who waits is woken in the order of coming, and nobody overtakes', () => {
  const budget = new MemoryBudget(100)
  budget.take(100)
  const got: string[] = []
  const want = (name: string, bytes: number) => {
    const wake = () => {
      if (budget.take(bytes)) got.push(name)
      else budget.wait(wake)
    }
    wake()
    return wake
  }
  want('large', 80)
  const gone = want('gone', 10)
  want('small', 10)
  budget.forget(gone)
  budget.give(50)
  assert.deepEqual(got, [], 'the small one would fit, but waits behind the large one')
  assert.ok(budget.isWaitedFor)
  budget.give(50)
  assert.deepEqual(got, ['large', 'small'])
  assert.ok(!budget.isWaitedFor)
  assert.equal(budget.usedBytes, 90)
})

test('everyone gets what they want in the end, whatever the order', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 150 }), { maxLength: 40 }),
      fc.array(fc.nat(), { maxLength: 40 }),
      (wanted, order) => {
        const budget = new MemoryBudget(100)
        const held: number[] = []
        let served = 0
        for (const bytes of wanted) {
          const wake = () => {
            if (!budget.take(bytes)) {
              budget.wait(wake)
              return
            }
            held.push(bytes)
            served += 1
          }
          wake()
        }
        for (let turn = 0; held.length > 0; turn += 1) budget.give(held.splice((order[turn] ?? 0) % held.length, 1)[0]!)
        assert.equal(served, wanted.length)
        assert.equal(budget.usedBytes, 0)
      },
    ),
  )
})
