import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import type { TempestResult } from './tempest.ts'

/** A part of a test's name → why this skip is right. */
export type ExplainedSkips = Readonly<Record<string, string>>

/** Each of tempest's tests as a test of ours. A skip that the table does not explain is a failure. */
export async function reportTempest(t: TestContext, results: readonly TempestResult[], explained: ExplainedSkips): Promise<void> {
  for (const { name, outcome, reason } of results) {
    const because = Object.entries(explained).find(([part]) => name.includes(part))?.[1]
    if (outcome === 'skipped' && because) {
      await t.test(name, { skip: because }, () => {})
      continue
    }
    await t.test(name, () => {
      assert.notEqual(outcome, 'skipped', `tempest skips this, and no explanation is known: ${reason}`)
      assert.equal(outcome, 'ok', reason)
    })
  }
}
