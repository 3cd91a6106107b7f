import type { FormatDriver } from '../format-driver.ts'
import { auditFile } from './audit.ts'
import { openDisk } from './disk.ts'
import { wrapDynamic, wrapStatic } from './wrap.ts'

/** VirtualBox's Virtual Disk Image, version 1.1. */
export const vdi: FormatDriver = {
  name: 'vdi',
  open: openDisk,
  audit: auditFile,
  writers: [
    { subformat: 'dynamic', wrap: wrapDynamic },
    { subformat: 'static', wrap: wrapStatic },
  ],
}
