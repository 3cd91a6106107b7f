import type { FormatDriver } from '../format-driver.ts'
import { auditFile } from './audit.ts'
import { openDisk } from './disk.ts'
import { factsOf } from './facts.ts'
import { wrapAzure, wrapDynamic, wrapFixed } from './wrap.ts'

/** Microsoft's Virtual Hard Disk, of Virtual PC, Hyper-V, Azure and Xen. */
export const vhd: FormatDriver = {
  name: 'vhd',
  open: openDisk,
  audit: auditFile,
  facts: factsOf,
  writers: [
    { subformat: 'dynamic', wrap: wrapDynamic },
    { subformat: 'fixed', wrap: wrapFixed },
    { subformat: 'azure', wrap: wrapAzure },
  ],
}
