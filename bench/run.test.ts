/** Every case of the benchmark runs, at sizes that say nothing about speed. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { missingTool } from '../test/peers/command.ts'
import type { Peer } from '../test/peers/daemon.ts'
import { noDebianCloud } from '../test/peers/debian-cloud.ts'
import { type Bench, type Row, smokeSizes } from './glance/bench-case.ts'
import { cases } from './glance/cases.ts'
import { startBoth } from './glance/start-both.ts'

const skip = noDebianCloud()
let bench: Bench & Peer
before(async () => {
  if (!skip) bench = await startBoth(smokeSizes)
})
after(() => bench?.stop())

for (const { name, tools = [], run } of cases) {
  test(`benchmark of ${name} runs`, { skip: skip || missingTool(...tools) }, async () => {
    const rows: Row[] = []
    for await (const row of run(bench)) rows.push(row)
    assert.ok(rows.length > 0)
    for (const { what, imprint, peer } of rows) assert.ok(imprint.median > 0 && peer.median > 0, what)
  })
}
