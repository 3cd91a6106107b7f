import type { DatabaseSync } from 'node:sqlite'
import { ServiceError } from '../../../base/errors.ts'
import { failpoint } from '../../../base/failpoint.ts'

/**
 * `images_<scope>_<column>`: shelf and scope first, the column, then creation and id, so that the rows come sorted. What follows
 * is there to be tested without reading the row.
 */
const imageIndex = (scope: 'all' | 'owner' | 'audience', column: string): string => {
  const scoped = scope === 'all' ? ['shelf'] : ['shelf', scope]
  const sorted = new Set([column, 'created_at', 'id'])
  const tested = [
    ...(scope === 'audience' ? ['owner'] : []), // the viewer's own are in another branch of the list
    ...(scope !== 'all' && column === 'created_at' ? unindexed : []),
  ]
  const only = scope === 'audience' ? ' WHERE audience IS NOT NULL' : ''
  return `CREATE INDEX images_${scope}_${column} ON images (${[...scoped, ...sorted, ...tested].join(', ')})${only};`
}

/** Filters and orders that have no index of their own in a scope. */
const unindexed = ['status', 'visibility', 'protected', 'disk_format', 'container_format', 'min_disk', 'min_ram']

const sortedEverywhere = ['created_at', 'updated_at', 'name', 'size']
const sortedForAll = [
  'status',
  'visibility',
  'protected',
  'disk_format',
  'container_format',
  'min_disk',
  'min_ram',
  'virtual_size',
  'checksum',
  'hash_algo',
  'hash_value',
]

/** Number n brings a database from schema n to n + 1. Never changed once released: a change is a new one at the end. */
export const migrations: readonly string[] = [
  `
  CREATE TABLE images (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    shelf INTEGER NOT NULL,
    audience TEXT,
    name TEXT,
    status TEXT NOT NULL,
    visibility TEXT NOT NULL,
    owner TEXT,
    protected INTEGER NOT NULL,
    hidden INTEGER NOT NULL,
    disk_format TEXT,
    container_format TEXT,
    min_disk INTEGER NOT NULL,
    min_ram INTEGER NOT NULL,
    size INTEGER,
    virtual_size INTEGER,
    checksum TEXT,
    hash_algo TEXT,
    hash_value TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    manifest TEXT,
    staged_manifest TEXT,
    record TEXT NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX images_by_id ON images (id);
  CREATE INDEX images_by_manifest ON images (seq, id, manifest, staged_manifest)
    WHERE manifest IS NOT NULL OR staged_manifest IS NOT NULL;
  ${[...sortedEverywhere, ...sortedForAll].map((column) => imageIndex('all', column)).join('\n  ')}
  ${sortedEverywhere.map((column) => imageIndex('owner', column)).join('\n  ')}
  ${sortedEverywhere.map((column) => imageIndex('audience', column)).join('\n  ')}

  CREATE TABLE image_terms (
    term BLOB NOT NULL,
    shelf INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (term, shelf, created_at, id)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE image_members (
    image_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    image_created_at INTEGER NOT NULL,
    PRIMARY KEY (image_id, member_id)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX image_members_by_member ON image_members (member_id, status, image_created_at, image_id);

  CREATE TABLE project_usage (
    owner TEXT PRIMARY KEY,
    image_count INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL,
    staged_bytes INTEGER NOT NULL,
    uploading_count INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE documents (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    indexes TEXT NOT NULL,
    expires_at INTEGER
  ) STRICT;
  CREATE UNIQUE INDEX documents_by_key ON documents (kind, key);
  CREATE INDEX documents_by_expiry ON documents (kind, expires_at) WHERE expires_at IS NOT NULL;

  CREATE TABLE document_indexes (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    key TEXT NOT NULL,
    is_unique INTEGER NOT NULL,
    PRIMARY KEY (kind, name, value, key)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE outbox (n INTEGER PRIMARY KEY AUTOINCREMENT, lines TEXT NOT NULL) STRICT;
  `,
]

/**
 * Brings the database to the newest schema, one transaction for each step: killed in between, it goes on where it stood.
 * @throws ServiceError `unsupported` for a database that a newer program has written
 */
export function migrate(database: DatabaseSync, steps: readonly string[] = migrations): void {
  const schema = schemaOf(database)
  if (schema > steps.length) {
    throw new ServiceError(
      'unsupported',
      `the catalog has schema ${schema}, and this program knows schemas up to ${steps.length}: start the newer program that wrote it`,
      { schema, newest: steps.length },
    )
  }
  for (const [step, text] of [...steps.entries()].slice(schema)) {
    database.exec('BEGIN IMMEDIATE')
    try {
      database.exec(text)
      failpoint('catalog:migrating')
      database.exec(`PRAGMA user_version = ${step + 1}`)
      database.exec('COMMIT')
    } catch (error) {
      if (database.isTransaction) database.exec('ROLLBACK')
      throw error
    }
    failpoint('catalog:migrated')
  }
}

export function schemaOf(database: DatabaseSync): number {
  return Number(database.prepare('PRAGMA user_version').get()?.user_version)
}
