import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { computeRoutes } from './compute-api.ts'
import { computeMicroversions } from './microversion.ts'
import { actionNames } from './server-actions.ts'

const page = readFileSync(new URL('../../../../docs/compute.md', import.meta.url), 'utf8')
const rows = page.split('\n').filter((line) => line.startsWith('| `/'))

test('docs/compute.md has every path with its methods, and no other', () => {
  const documented = new Set(rows.flatMap((row) => [...row.split('|')[1]!.matchAll(/`(\/[^`]+)`/g)].map(([, path]) => path!)))
  const served = new Set(computeRoutes.map(({ path }) => path.replace(/:(\w+)/g, '{$1}')))
  assert.deepEqual([...documented].sort(), [...served].sort())
  for (const { method, path } of computeRoutes) {
    const row = rows.find((line) => line.includes(`\`${path.replace(/:(\w+)/g, '{$1}')}\``))
    assert.match(row!, new RegExp(`\\b${method}\\b`), `${method} ${path}`)
  }
})

test('docs/compute.md has every action, and the latest version', () => {
  for (const name of actionNames) assert.ok(page.includes(`\`${name}\``), name)
  assert.ok(page.includes(`2.1 to 2.${computeMicroversions.most}`))
})
