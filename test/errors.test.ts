import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { statusOf } from '../src/serve/http/api.ts'

const page = readFileSync(new URL('../docs/errors.md', import.meta.url), 'utf8')
const documented = [...page.matchAll(/^### (\S+)\n(\d{3})\./gm)].map(([, code, status]) => [code!, Number(status)])

test('every error code is in docs/errors.md with its status, and nothing else is', () => {
  assert.deepEqual(Object.fromEntries(documented), statusOf)
})
