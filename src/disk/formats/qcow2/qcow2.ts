import type { FormatDriver } from '../format-driver.ts'
import { auditFile } from './audit.ts'
import { openDisk } from './disk.ts'
import { wrapDisk } from './wrap.ts'

/** QEMU's own format, versions 2 and 3. Of internal snapshots the active disk is shown. */
export const qcow2: FormatDriver = {
  name: 'qcow2',
  open: openDisk,
  audit: auditFile,
  writers: [{ subformat: 'plain', wrap: wrapDisk }],
}
