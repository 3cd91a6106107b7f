import type { FormatDriver } from '../format-driver.ts'
import { auditFile } from './audit.ts'
import { openDisk } from './disk.ts'
import { factsOf } from './facts.ts'
import { packDisk } from './pack.ts'
import { listSnapshots } from './snapshots.ts'
import { wrapDisk } from './wrap.ts'

/** QEMU's own format, versions 2 and 3. */
export const qcow2: FormatDriver = {
  name: 'qcow2',
  open: openDisk,
  audit: auditFile,
  facts: factsOf,
  snapshots: listSnapshots,
  writers: [
    { subformat: 'plain', wrap: wrapDisk },
    { subformat: 'zstd', pack: (disk, options) => packDisk(disk, 'zstd', options), needsRewrite: true },
    { subformat: 'zlib', pack: (disk, options) => packDisk(disk, 'zlib', options), needsRewrite: true },
  ],
}
