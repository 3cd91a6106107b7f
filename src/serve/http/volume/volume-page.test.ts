import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { volumeMicroversions } from './microversion.ts'
import { snapshotActionNames } from './snapshot-routes.ts'
import { actionNames } from './volume-actions.ts'
import { volumeApiRoutes } from './volume-api.ts'

const page = readFileSync(new URL('../../../../docs/volumes.md', import.meta.url), 'utf8')
const rows = page.split('\n').filter((line) => line.startsWith('| `/'))

test('docs/volumes.md has every path with its methods, and no other', () => {
  const documented = new Set(rows.flatMap((row) => [...row.split('|')[1]!.matchAll(/`(\/[^`]+)`/g)].map(([, path]) => path!)))
  const served = new Set(volumeApiRoutes.map(({ path }) => path.replace(/:(\w+)/g, '{$1}')))
  assert.deepEqual([...documented].sort(), [...served].sort())
  for (const { method, path } of volumeApiRoutes) {
    const row = rows.find((line) => line.includes(`\`${path.replace(/:(\w+)/g, '{$1}')}\``))
    assert.match(row!, new RegExp(`\\b${method}\\b`), `${method} ${path}`)
  }
})

test('docs/volumes.md has every action, and the latest version', () => {
  for (const name of [...actionNames, ...snapshotActionNames]) assert.ok(page.includes(`\`${name}\``), name)
  assert.ok(page.includes(`3.0 to 3.${volumeMicroversions.most}`))
})
