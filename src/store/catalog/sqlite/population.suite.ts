import { createHash } from 'node:crypto'
import { anImage } from '../catalog.suite.ts'
import type { ImageRecord } from '../catalog.ts'
import { termsOf } from '../image-terms.ts'
import { addUsage, noUsage, usageOf } from '../image-usage.ts'
import { imageRow } from '../sql-schema.ts'
import { schemaOf } from './migrations.ts'
import { connect } from './sqlite-catalog.ts'

/** The project that sees 7 % of the population: 5 % are its own and 2 % of all are public. */
export const DEMO = 'd'.repeat(32)
const SYSTEMS = ['debian', 'ubuntu', 'fedora', 'rocky', 'alma', 'suse', 'arch', 'alpine', 'windows', 'freebsd']
const NEWEST = Date.UTC(2026, 0, 1)

/** Image number `n` of a population: four properties, two tags, 99 other projects, 2 % public, each a second older. */
export function populationImage(n: number, demo = DEMO): ImageRecord {
  const at = NEWEST - n * 1000
  return anImage({
    id: createHash('md5')
      .update(`image${n}`)
      .digest('hex')
      .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-'),
    name: `seed-${String(n).padStart(7, '0')}`,
    size: (n * 7919) % 20_000_000_000,
    virtualSize: 10_737_418_240,
    diskFormat: ['qcow2', 'raw', 'vmdk'][n % 3] ?? null,
    checksum: createHash('md5').update(String(n)).digest('hex'),
    hashAlgo: 'sha512',
    hashValue: createHash('sha512').update(String(n)).digest('hex'),
    owner: n % 20 === 7 ? demo : `${n % 99}`.padStart(32, 'e'),
    minDisk: 10,
    minRam: 512,
    visibility: n % 50 === 0 ? 'public' : n % 2 === 1 ? 'shared' : 'private',
    createdAt: at,
    updatedAt: at,
    tags: [n % 100 === 7 ? 'golden' : 'nightly', `team-${n % 50}`],
    properties: {
      os_distro: SYSTEMS[n % 10] ?? '',
      os_version: String(n % 20),
      hw_disk_bus: 'virtio',
      build_id: `b${n}`,
    },
    manifest: createHash('sha256').update(String(n)).digest('hex'),
  })
}

/** Fills the empty catalog at `path` with `count` images: rows first and indexes after, as bulk loads go. */
export function populate(path: string, count: number, demo = DEMO): void {
  const database = connect(path)
  if (schemaOf(database) === 0) throw new TypeError('open the catalog once before it is populated')
  const indexes = database.prepare("SELECT name, sql FROM sqlite_schema WHERE tbl_name = 'images' AND type = 'index'").all()
  database.exec('PRAGMA synchronous = OFF; PRAGMA cache_size = -400000; BEGIN IMMEDIATE')
  for (const { name } of indexes) database.exec(`DROP INDEX ${name}`)
  const columns = Object.keys(imageRow(populationImage(1)))
  const insert = database.prepare(`INSERT INTO images (seq, ${columns.join()}) VALUES (?${', ?'.repeat(columns.length)})`)
  database.exec('CREATE TEMP TABLE unsorted (term BLOB, shelf INTEGER, created_at INTEGER, id TEXT, seq INTEGER)')
  const insertTerm = database.prepare('INSERT INTO unsorted (term, shelf, created_at, id, seq) VALUES (?, ?, ?, ?, ?)')
  const usage = new Map<string, typeof noUsage>()
  for (let n = 1; n <= count; n += 1) {
    const image = populationImage(n, demo)
    const row = imageRow(image)
    insert.run(n, ...Object.values(row))
    for (const term of termsOf(image)) insertTerm.run(term, row.shelf, row.created_at, row.id, n)
    const owner = image.owner ?? ''
    usage.set(owner, addUsage(usage.get(owner) ?? noUsage, usageOf(image)))
  }
  database.exec('INSERT INTO image_terms SELECT * FROM unsorted ORDER BY term, shelf, created_at, id; DROP TABLE unsorted')
  for (const { sql } of indexes) database.exec(String(sql))
  const insertUsage = database.prepare('INSERT INTO project_usage VALUES (?, ?, ?, ?, ?)')
  for (const [owner, use] of usage) {
    insertUsage.run(owner, use.imageCount, use.totalBytes, use.stagedBytes, use.uploadingCount)
  }
  database.exec('COMMIT; PRAGMA wal_checkpoint(TRUNCATE)')
  database.close()
}
