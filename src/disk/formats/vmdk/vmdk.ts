import type { FormatDriver } from '../format-driver.ts'
import { auditFile } from './audit.ts'
import { openDisk } from './disk.ts'
import { factsOf } from './facts.ts'
import { packDisk } from './pack.ts'
import { wrapDisk } from './wrap.ts'

/** VMware's format: hosted sparse extents, alone or in parts, and flat ones. ESX's own sparse extents are refused. */
export const vmdk: FormatDriver = {
  name: 'vmdk',
  hasParts: true,
  open: openDisk,
  audit: auditFile,
  facts: factsOf,
  writers: [
    { subformat: 'monolithicSparse', wrap: wrapDisk },
    { subformat: 'streamOptimized', pack: packDisk },
  ],
}
