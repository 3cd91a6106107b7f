/** The catalogue of hostile files as a table: how many of each kind there are, and the words that refuse them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isServiceError } from '../../src/base/errors.ts'
import { checked } from '../../src/disk/block/checked.ts'
import { examination } from '../../src/images/examine/examination.ts'
import { hostileCases } from '../fixtures/disk/hostile.ts'
import { hostileContainers, useContainer } from '../fixtures/disk/hostile-containers.ts'

const numbered = (kind: string, last: number): string[] => Array.from({ length: last }, (_, at) => `H-${kind}-${at + 1}`)
/** Those of the catalogue that files of images can be; partition tables, which no upload is refused for, have tests of their own. */
const wanted = [
  ...numbered('Q', 22),
  ...numbered('R', 4),
  ...['H-R-8', 'H-R-10'],
  ...numbered('VMDK', 10),
  ...numbered('VHD', 4),
  ...numbered('VX', 4),
  'H-VDI-1',
  ...numbered('A', 3),
]

interface Row {
  refused: number
  taken: number
  readonly reasons: Set<string>
}

test('every kind of the catalogue has its cases, and each is refused by its own word or is one that must be taken', async (t) => {
  const rows = new Map<string, Row>()
  const wrong: string[] = []
  const tell = async (id: string, name: string, expect: 'ok' | readonly string[], use: () => Promise<unknown>) => {
    const row = rows.get(id) ?? { refused: 0, taken: 0, reasons: new Set() }
    rows.set(id, row)
    try {
      await use()
      if (expect !== 'ok') wrong.push(`${id} ${name}: taken`)
      row.taken += 1
    } catch (error) {
      const isTyped = isServiceError(error, 'invalid-image') || isServiceError(error, 'unsupported')
      if (!isTyped) throw error
      const reason = String(error.details.reason ?? 'none')
      if (expect === 'ok' || !expect.includes(reason)) wrong.push(`${id} ${name}: ${reason}, not ${expect}: ${error.message}`)
      row.refused += 1
      row.reasons.add(`${error.code}/${reason}`)
    }
  }
  for (const { id, name, declared, file, expect } of hostileCases()) {
    await tell(id, name, expect, () => examination(checked(file, 'file'), declared))
  }
  for (const each of hostileContainers()) await tell(each.id, each.name, each.expect, () => useContainer(each))

  for (const [id, { refused, taken, reasons }] of rows) {
    t.diagnostic(`${id.padEnd(10)} ${String(refused).padStart(3)} refused, ${taken} taken  ${[...reasons].sort().join(' ')}`)
  }
  const all = [...rows.values()]
  t.diagnostic(
    `${all.reduce((sum, { refused }) => sum + refused, 0)} refused, ${all.reduce((sum, { taken }) => sum + taken, 0)} taken`,
  )
  assert.deepEqual(wrong, [])
  assert.deepEqual(
    wanted.filter((id) => !rows.has(id)),
    [],
  )
})
