import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { adler32 } from './adler32.ts'

export interface RpmDatabases {
  /** As rpm makes it. */
  readonly sqlite: Buffer
  /** The headers in it, by rpm's numbers. */
  readonly headers: readonly { readonly id: number; readonly blob: Uint8Array }[]
  /** What `rpm -qa` says of it, a line a package: name, epoch, version-release, architecture, source, bytes. */
  readonly said: readonly string[]
}

const MANY = 24

/** Every way of naming: an epoch, `~` and `^`, no architecture, a source of another name, a header of many files. */
const spec = `Name: alpha
Version: 1.2~rc1
Release: 3.fc40
Epoch: 2
Summary: a
License: MIT
%description
a
%package doc
Summary: many files
BuildArch: noarch
%description doc
d
%package -n gamma
Epoch: 0
Version: 7^20240101git
Release: 1
Summary: g
%description -n gamma
g
${Array.from({ length: MANY }, (_, at) => `%package -n part-${at}\nSummary: p\n%description -n part-${at}\n${'text '.repeat(at * 40)}\n%files -n part-${at}\n`).join('')}
%install
mkdir -p %{buildroot}/opt/docs
for each in $(seq 1 400); do echo $each > %{buildroot}/opt/docs/a-file-with-a-long-name-$each; done
head -c 5000 /dev/zero > %{buildroot}/opt/program
%files
/opt/program
%files doc
/opt/docs
%files -n gamma
%changelog
`
const FORMAT = '%{name} %{epoch} %{version}-%{release} %{arch} %{sourcerpm} %{longsize}\\n'

export function saidByRpm(folder: string, backend: string): string[] {
  const words = ['-qa', '--dbpath', folder, '--define', `_db_backend ${backend}`, '--qf', FORMAT]
  return execFileSync('rpm', words, { encoding: 'utf8', stdio: 'pipe' }).trim().split('\n').sort()
}

/** Builds packages, and has rpm note them as installed in a database of its own. */
export function rpmDatabases(): RpmDatabases {
  const folder = mkdtempSync(join(tmpdir(), 'imprint-rpm-'))
  try {
    writeFileSync(join(folder, 'a.spec'), spec)
    const top = ['--define', `_topdir ${folder}/top`, '--define', '_build_id_links none', '--define', '_binary_payload w0.gzdio']
    execFileSync('rpmbuild', ['-bb', '--quiet', ...top, join(folder, 'a.spec')], { stdio: 'pipe' })
    const built = execFileSync('find', [join(folder, 'top/RPMS'), '-name', '*.rpm'], { encoding: 'utf8' })
      .trim()
      .split('\n')
    const database = join(folder, 'db')
    mkdirSync(database)
    execFileSync('rpm', ['-i', '--justdb', '--nodeps', '--ignorearch', '--ignoreos', '--dbpath', database, ...built], {
      stdio: 'pipe',
    })
    const said = saidByRpm(database, 'sqlite')
    const sqlite = join(database, 'rpmdb.sqlite')
    const opened = new DatabaseSync(sqlite, { readOnly: true })
    const rows = opened.prepare('SELECT hnum, blob FROM Packages ORDER BY hnum').all()
    opened.close()
    const headers = rows.map((row) => ({ id: Number(row.hnum), blob: row.blob as Uint8Array }))
    return { sqlite: readFileSync(sqlite), headers, said }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** The same headers as `Packages.db`. Source: rpm, lib/backend/ndb/rpmpkg.c. */
export function ndbOf(headers: RpmDatabases['headers']): Buffer {
  const slots = Buffer.alloc(4096)
  slots.write('RpmP', 0)
  slots.writeUInt32LE(1, 8)
  slots.writeUInt32LE(1, 12)
  slots.writeUInt32LE(headers.length + 1, 16)
  for (let at = 32; at < 4096; at += 16) slots.write('Slot', at)
  const parts: Buffer[] = [slots]
  let block = 4096 / 16
  for (const [index, { id, blob }] of headers.entries()) {
    const bytes = Math.ceil((16 + blob.length + 12) / 16) * 16
    const stored = Buffer.alloc(bytes)
    stored.write('BlbS', 0)
    stored.writeUInt32LE(id, 4)
    stored.writeUInt32LE(blob.length, 12)
    stored.set(blob, 16)
    stored.writeUInt32LE(adler32(stored.subarray(0, bytes - 12)), bytes - 12)
    stored.writeUInt32LE(blob.length, bytes - 8)
    stored.write('BlbE', bytes - 4)
    const at = 32 + (index + 3) * 16 // some are free
    slots.writeUInt32LE(id, at + 4)
    slots.writeUInt32LE(block, at + 8)
    slots.writeUInt32LE(bytes / 16, at + 12)
    block += bytes / 16
    parts.push(stored)
  }
  return Buffer.concat(parts)
}

/** The same headers as `Packages`, by Berkeley DB's own tool. */
export function berkeleyOf(headers: RpmDatabases['headers'], { pageBytes = 4096, isBig = false } = {}): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'imprint-bdb-'))
  try {
    const number = (id: number) => {
      const bytes = Buffer.alloc(4)
      if (isBig) bytes.writeUInt32BE(id)
      else bytes.writeUInt32LE(id)
      return bytes.toString('hex')
    }
    const order = `db_lorder=${isBig ? 4321 : 1234}`
    const rows = [` ${number(0)}\n ${number(headers.length)}`]
    for (const { id, blob } of headers) rows.push(` ${number(id)}\n ${Buffer.from(blob).toString('hex')}`)
    const head = `VERSION=3\nformat=bytevalue\ntype=hash\ndb_pagesize=${pageBytes}\n${order}\nHEADER=END\n`
    execFileSync('db5.3_load', [join(folder, 'Packages')], { input: `${head}${rows.join('\n')}\nDATA=END\n` })
    return readFileSync(join(folder, 'Packages'))
  } finally {
    rmSync(folder, { recursive: true })
  }
}
