import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hostileCases } from '../../../test/fixtures/disk/hostile.ts'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { checked } from '../../disk/block/checked.ts'
import { examination } from './examination.ts'

/** Tables of the largest case take 128 MiB; no other may read more than a few. */
const MAX_READ_BYTES = 160 * 1024 * 1024

for (const { id, name, declared, file, expect } of hostileCases()) {
  test(`${id} ${declared}: ${name}`, async () => {
    let readBytes = 0
    const counted = {
      ...file,
      read: (offset: number, length: number) => {
        readBytes += length
        return file.read(offset, length)
      },
    }
    const outcome = await examination(checked(counted, 'file'), declared).catch((error: unknown) => error)
    assert.ok(readBytes <= MAX_READ_BYTES, `read ${readBytes} bytes`)
    if (expect === 'ok') {
      assert.ok(!(outcome instanceof Error), `refused: ${outcome}`)
      return
    }
    assert.ok(outcome instanceof ServiceError, `neither refused nor typed: ${outcome}`)
    assert.ok(isServiceError(outcome, 'invalid-image') || isServiceError(outcome, 'unsupported'), outcome.code)
    assert.ok(expect.includes(String(outcome.details.reason ?? 'none')), `${outcome.details.reason}: ${outcome.message}`)
    assert.match(outcome.message, /^\S.{20,}/)
  })
}
