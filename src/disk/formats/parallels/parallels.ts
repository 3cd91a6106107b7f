import type { FormatDriver } from '../format-driver.ts'
import { auditFile } from './audit.ts'
import { openDisk } from './disk.ts'
import { factsOf } from './facts.ts'

/** Expandable disks of Parallels and Virtuozzo, which Glance calls `ploop`. Read only. */
export const parallels: FormatDriver = { name: 'ploop', open: openDisk, audit: auditFile, facts: factsOf, writers: [] }
