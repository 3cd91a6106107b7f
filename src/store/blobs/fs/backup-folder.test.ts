import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { openBackupFolder } from './backup-folder.ts'

async function places(): Promise<{ readonly data: string; readonly away: string }> {
  const root = await realpath(mkdtempSync(join(tmpdir(), 'imprint-backup-')))
  const [data, away] = [join(root, 'data'), join(root, 'away')]
  mkdirSync(data)
  mkdirSync(away)
  return { data, away }
}
const markerOf = (folder: string) => JSON.parse(readFileSync(join(folder, 'backup.json'), 'utf8'))

test('a new folder is made, marked, and marked whole at the end', async () => {
  const { data, away } = await places()
  const folder = join(away, 'backup')
  const target = await openBackupFolder(folder, data, () => 0)
  await target.blobs.put('packs/00/a', [Buffer.from('bytes')])
  assert.equal(markerOf(folder).completedAt, null)
  await target.complete()
  await target.close()
  assert.deepEqual(markerOf(folder), {
    format: 'imprint-backup',
    version: 1,
    startedAt: '1970-01-01T00:00:00.000Z',
    completedAt: '1970-01-01T00:00:00.000Z',
  })
  assert.ok(existsSync(join(folder, 'store/packs/00/a')))
  const again = await openBackupFolder(folder, data)
  assert.equal(markerOf(folder).completedAt, null, 'while the next one runs, it is not whole')
  await again.close()
})

test('two backups do not write one folder at once', async () => {
  const { data, away } = await places()
  const first = await openBackupFolder(join(away, 'backup'), data)
  await assert.rejects(openBackupFolder(join(away, 'backup'), data), { code: 'conflict' })
  await first.close()
  await (await openBackupFolder(join(away, 'backup'), data)).close()
})

test('a folder that a service was started in is no backup any more', async () => {
  const { data, away } = await places()
  const folder = join(away, 'backup')
  await (await openBackupFolder(folder, data)).close()
  writeFileSync(join(folder, 'catalog.db'), '')
  await assert.rejects(openBackupFolder(folder, data), { code: 'conflict' })
})

const refused: readonly {
  readonly name: string
  readonly folder: (data: string, away: string) => string
  readonly says: RegExp
}[] = [
  { name: 'a relative path', folder: () => 'backup', says: /whole path/ },
  { name: 'a path with ..', folder: (_, away) => `${away}/../data/x`, says: /without/ },
  { name: 'a path that ends in a slash', folder: (_, away) => `${away}/x/`, says: /without/ },
  { name: 'the data folder', folder: (data) => data, says: /outside the data folder/ },
  { name: 'a folder inside the data folder', folder: (data) => join(data, 'backup'), says: /outside the data folder/ },
  { name: 'a folder around the data folder', folder: (data) => join(data, '..'), says: /outside the data folder/ },
  { name: 'a folder in one that is not there', folder: (_, away) => join(away, 'no/backup'), says: /ENOENT/ },
  {
    name: 'a folder behind a symbolic link',
    folder: (_, away) => {
      mkdirSync(join(away, 'real'))
      symlinkSync(join(away, 'real'), join(away, 'link'))
      return join(away, 'link/backup')
    },
    says: /symbolic link; say .*real\/backup/,
  },
  {
    name: 'a symbolic link',
    folder: (_, away) => {
      mkdirSync(join(away, 'real'))
      symlinkSync(join(away, 'real'), join(away, 'link'))
      return join(away, 'link')
    },
    says: /no folder/,
  },
  {
    name: 'a folder with something else in it',
    folder: (_, away) => {
      writeFileSync(join(away, 'letters.txt'), 'dear')
      return away
    },
    says: /no backup/,
  },
  {
    name: 'a folder whose marker is a link to somewhere',
    folder: (data, away) => {
      writeFileSync(join(data, 'backup.json'), '{"format":"imprint-backup","version":1}')
      symlinkSync(join(data, 'backup.json'), join(away, 'backup.json'))
      return away
    },
    says: /no backup/,
  },
  {
    name: 'a backup of a later program',
    folder: (_, away) => {
      writeFileSync(join(away, 'backup.json'), '{"format":"imprint-backup","version":2}')
      return away
    },
    says: /version 2/,
  },
  {
    name: 'a backup whose store is a link to somewhere',
    folder: (data, away) => {
      writeFileSync(join(away, 'backup.json'), '{"format":"imprint-backup","version":1}')
      symlinkSync(data, join(away, 'store'))
      return away
    },
    says: /no folder/,
  },
]
for (const { name, folder, says } of refused) {
  test(`a backup refuses ${name}`, async () => {
    const { data, away } = await places()
    await assert.rejects(openBackupFolder(folder(data, away), data), { code: 'invalid-request', message: says })
  })
}
