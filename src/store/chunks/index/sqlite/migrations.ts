/**
 * The database's `user_version` says how many of these it has been through. Chunk ids come from a counter and not from the table,
 * so that none is used twice while a collector holds marks on ids.
 */
export const migrations: readonly string[] = [
  `
  CREATE TABLE packs(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, state INTEGER NOT NULL, bytes INTEGER NOT NULL DEFAULT 0,
    live_chunks INTEGER NOT NULL DEFAULT 0, live_bytes INTEGER NOT NULL DEFAULT 0, live_plain INTEGER NOT NULL DEFAULT 0
  ) STRICT;
  CREATE TABLE chunks(
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, pack INTEGER NOT NULL, offset INTEGER NOT NULL,
    stored INTEGER NOT NULL, plain INTEGER NOT NULL, kind INTEGER NOT NULL, codec INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX chunks_by_pack ON chunks(pack, offset);
  CREATE TABLE manifests(
    id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB, owner TEXT NOT NULL, state INTEGER NOT NULL, session TEXT UNIQUE,
    file_bytes INTEGER, allocated_bytes INTEGER, stored_bytes INTEGER NOT NULL DEFAULT 0, touched_at INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX manifests_by_digest ON manifests(digest);
  CREATE INDEX manifests_by_owner ON manifests(owner, id);
  CREATE TABLE refs(chunk INTEGER NOT NULL, manifest INTEGER NOT NULL, PRIMARY KEY(chunk, manifest)) STRICT, WITHOUT ROWID;
  CREATE INDEX refs_by_manifest ON refs(manifest, chunk);
`,
  `
  ALTER TABLE chunks ADD COLUMN distrusted INTEGER NOT NULL DEFAULT 0;
  CREATE INDEX chunks_distrusted ON chunks(pack) WHERE distrusted = 1;
  ALTER TABLE packs ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0;
`,
  // refs of one owner to a chunk stand together, so that finding one takes as long whoever else has the chunk
  `
  CREATE TABLE owners(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
  INSERT INTO owners(name) SELECT DISTINCT owner FROM manifests;
  DROP INDEX manifests_by_owner;
  ALTER TABLE manifests ADD COLUMN owner_id INTEGER NOT NULL DEFAULT 0;
  UPDATE manifests SET owner_id = (SELECT id FROM owners WHERE name = owner);
  ALTER TABLE manifests DROP COLUMN owner;
  CREATE TABLE owned_refs(
    chunk INTEGER NOT NULL, owner INTEGER NOT NULL, manifest INTEGER NOT NULL, PRIMARY KEY(chunk, owner, manifest)
  ) STRICT, WITHOUT ROWID;
  INSERT INTO owned_refs SELECT chunk, owner_id, manifest FROM refs CROSS JOIN manifests ON manifests.id = refs.manifest
    ORDER BY chunk, owner_id, manifest;
  DROP TABLE refs;
  ALTER TABLE owned_refs RENAME TO refs;
  CREATE INDEX refs_by_manifest ON refs(manifest, chunk);
`,
]
