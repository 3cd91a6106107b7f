import { formatBytes } from '../base/units.ts'
import type { Export } from './client/imprint-client.ts'
import type { Output } from './output.ts'

/** A time of the service, in the words of the one who reads: seconds are enough. */
export const whenOf = (iso: string): string => {
  const at = new Date(iso)
  return Number.isNaN(at.getTime()) ? 'an unknown time' : at.toISOString().replace(/\.\d+Z$/, 'Z')
}

export function printExports(out: Output, exports: readonly Export[]): void {
  out.table(exports, [
    { title: 'ID', value: ({ id }) => id },
    { title: 'IMAGE', value: ({ image }) => (image ? (image.name ?? image.id) : null) },
    { title: 'DISK', value: ({ diskBytes }) => formatBytes(diskBytes), align: 'right' },
    { title: 'WRITABLE', value: ({ writable }) => (writable ? 'yes' : 'no') },
    { title: 'ENDS', value: ({ expiresAt }) => whenOf(expiresAt) },
  ])
}
