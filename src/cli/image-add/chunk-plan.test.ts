import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { BlockSource, Extent } from '../../disk/block/block-source.ts'
import { batches, dataRuns } from './chunk-plan.ts'

const CHUNK = 8

/** A source that is nothing but its extents. */
function sourceOf(runs: readonly (readonly [length: number, kind: Extent['kind']])[]): BlockSource {
  return {
    size: runs.reduce((sum, [length]) => sum + length, 0),
    read: async (_, length) => new Uint8Array(length),
    async *extents() {
      let offset = 0
      for (const [length, kind] of runs) {
        yield { offset, length, kind }
        offset += length
      }
    },
    close: async () => {},
  }
}

test('the plan holds exactly the chunks that any data touches, each once, in batches that are full', () => {
  const run = fc.tuple(fc.integer({ min: 1, max: 40 }), fc.constantFrom<Extent['kind']>('data', 'hole', 'zero'))
  return fc.assert(
    fc.asyncProperty(fc.array(run, { maxLength: 30 }), fc.integer({ min: 1, max: 9 }), async (runs, most) => {
      const expected = new Set<number>()
      let offset = 0
      for (const [length, kind] of runs) {
        if (kind === 'data') for (let byte = offset; byte < offset + length; byte += 1) expected.add(Math.floor(byte / CHUNK))
        offset += length
      }
      const planned: number[] = []
      const sizes: number[] = []
      for await (const batch of batches(dataRuns(sourceOf(runs), CHUNK), most)) {
        const chunks = batch.flatMap(({ first, count }) => Array.from({ length: count }, (_, at) => first + at))
        sizes.push(chunks.length)
        planned.push(...chunks)
      }
      assert.deepEqual(
        planned,
        [...expected].sort((a, b) => a - b),
      )
      assert.ok(sizes.slice(0, -1).every((size) => size === most))
    }),
  )
})
