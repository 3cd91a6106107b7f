import { viewOf } from './superblock.ts'

/** Attributes in `trusted.` that are access lists, by the name under which they are shown as well. */
export const ACCESS_LISTS: ReadonlyMap<string, string> = new Map([
  ['SGI_ACL_FILE', 'system.posix_acl_access'],
  ['SGI_ACL_DEFAULT', 'system.posix_acl_default'],
])
const STORED_ENTRY_BYTES = 12
const SHOWN_ENTRY_BYTES = 8
const SHOWN_VERSION = 2
const WITH_ID: readonly number[] = [0x02, 0x08] // a named user, a named group
const NO_ID = 0xffffffff

/** An access list as getxattr(2) gives it: little-endian, with no ids that mean nothing. Source: Linux fs/xfs/libxfs/xfs_format.h, struct xfs_acl; posix_acl_xattr.h. */
export function accessList(stored: Uint8Array, bad: (problem: string) => Error): Uint8Array {
  const view = viewOf(stored)
  const count = stored.length >= 4 ? view.getUint32(0) : 0
  if (stored.length < 4 + count * STORED_ENTRY_BYTES) throw bad(`an access list of ${count} entries in ${stored.length} bytes`)
  const shown = new DataView(new ArrayBuffer(4 + count * SHOWN_ENTRY_BYTES))
  shown.setUint32(0, SHOWN_VERSION, true)
  for (let index = 0; index < count; index += 1) {
    const [from, to] = [4 + index * STORED_ENTRY_BYTES, 4 + index * SHOWN_ENTRY_BYTES]
    const tag = view.getUint32(from)
    shown.setUint16(to, tag, true)
    shown.setUint16(to + 2, view.getUint16(from + 8), true)
    shown.setUint32(to + 4, WITH_ID.includes(tag) ? view.getUint32(from + 4) : NO_ID, true)
  }
  return new Uint8Array(shown.buffer)
}
