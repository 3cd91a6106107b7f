import type { FormatDriver } from '../format-driver.ts'
import { auditFile } from './audit.ts'
import { openDisk } from './disk.ts'
import { factsOf } from './facts.ts'

/** QEMU Enhanced Disk, which qcow2 of version 3 replaced. Read only: whoever writes today writes qcow2. Glance has no name for it. */
export const qed: FormatDriver = { name: 'qed', open: openDisk, audit: auditFile, facts: factsOf, writers: [] }
