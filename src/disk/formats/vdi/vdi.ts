import type { FormatDriver } from '../format-driver.ts'
import { auditFile } from './audit.ts'
import { openDisk } from './disk.ts'
import { factsOf } from './facts.ts'
import { wrapDynamic, wrapStatic } from './wrap.ts'

/** VirtualBox's Virtual Disk Image, version 1.1. */
export const vdi: FormatDriver = {
  name: 'vdi',
  open: openDisk,
  audit: auditFile,
  facts: factsOf,
  writers: [
    { subformat: 'dynamic', wrap: wrapDynamic },
    { subformat: 'static', wrap: wrapStatic },
  ],
}
