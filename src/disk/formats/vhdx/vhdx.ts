import type { FormatDriver } from '../format-driver.ts'
import { auditFile } from './audit.ts'
import { openDisk } from './disk.ts'
import { factsOf } from './facts.ts'
import { wrapDynamic, wrapFixed } from './wrap.ts'

/** Hyper-V's format since 2012: fixed, dynamic, and differencing where the parent is given. */
export const vhdx: FormatDriver = {
  name: 'vhdx',
  open: openDisk,
  audit: auditFile,
  facts: factsOf,
  writers: [
    { subformat: 'dynamic', wrap: wrapDynamic },
    { subformat: 'fixed', wrap: wrapFixed },
  ],
}
