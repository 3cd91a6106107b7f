import type { Segment } from './mapped-disk.ts'

/** Joins segments of one kind that touch on the disk and, where they are data, in the file: one read in place of one a cluster. */
export function* joined(segments: Iterable<Segment>): Generator<Segment> {
  let open: Segment | undefined
  for (const next of segments) {
    const both: Segment | undefined = open && joinedWith(open, next)
    if (open && !both) yield open
    open = both ?? next
  }
  if (open) yield open
}

/** Both as one; undefined where they are not. */
export function joinedWith(a: Segment, b: Segment): Segment | undefined {
  if (a.kind === 'packed' || b.kind === 'packed' || a.offset + a.length !== b.offset) return undefined
  const length = a.length + b.length
  if (a.kind !== 'data') return a.kind === b.kind ? { ...a, length } : undefined
  const touch = b.kind === 'data' && a.file === b.file && a.hostOffset + a.length === b.hostOffset
  return touch ? { ...a, length } : undefined
}
