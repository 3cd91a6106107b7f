import type { Extent } from './block-source.ts'

/** Joins touching extents of one kind, so that a reader sees few long runs instead of one for each cluster. */
export async function* merged(extents: AsyncIterable<Extent> | Iterable<Extent>): AsyncGenerator<Extent> {
  let open: Extent | undefined
  for await (const next of extents) {
    if (open && open.kind === next.kind && open.offset + open.length === next.offset) {
      open = { offset: open.offset, length: open.length + next.length, kind: open.kind }
      continue
    }
    if (open) yield open
    open = next
  }
  if (open) yield open
}
