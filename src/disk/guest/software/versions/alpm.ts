/**
 * The order of pacman's versions, `[epoch:]version[-release]`: negative where `a` is older. A release counts where both have one. Source:
 * vercmp(8). Any text has a place in it.
 */
export function compareAlpm(a: string, b: string): number {
  if (a === b) return 0
  const [left, right] = [partsOf(a), partsOf(b)]
  const difference = compareSegments(left.epoch, right.epoch) || compareSegments(left.version, right.version)
  return difference || left.release === null || right.release === null ? difference : compareSegments(left.release, right.release)
}

function partsOf(text: string): { epoch: string; version: string; release: string | null } {
  const [, epoch, rest = text] = /^(\d*):(.*)$/s.exec(text) ?? []
  const dash = rest.lastIndexOf('-')
  return { epoch: epoch || '0', version: dash < 0 ? rest : rest.slice(0, dash), release: dash < 0 ? null : rest.slice(dash + 1) }
}

/** As rpm's of old, and by how many characters part two segments; letters at the end are older than the end. */
function compareSegments(a: string, b: string): number {
  if (a === b) return 0
  const [left, right] = [segmentsOf(a), segmentsOf(b)]
  for (let at = 0; ; at += 1) {
    const [one, two] = [left[at]!, right[at]!]
    if (isOver(one) || isOver(two)) return compareRests(restOf(one), restOf(two))
    if (one.text === '' || two.text === '') return compareRests(restOf({ ...one, before: 0 }), restOf({ ...two, before: 0 }))
    if (one.before !== two.before) return one.before - two.before
    if (one.isNumber !== two.isNumber) return one.isNumber ? 1 : -1
    const difference = compareSegment(one.text, two.text, one.isNumber)
    if (difference !== 0) return difference
  }
}

interface Segment {
  /** Empty: the end. */
  readonly text: string
  readonly isNumber: boolean
  /** Characters between it and the segment before. */
  readonly before: number
}

const isOver = ({ text, before }: Segment): boolean => text === '' && before === 0

type Rest = 'nothing' | 'letters' | 'other'

function restOf(segment: Segment): Rest {
  if (isOver(segment)) return 'nothing'
  return segment.before > 0 || segment.isNumber ? 'other' : 'letters'
}

/** Where one of them has ended. */
function compareRests(one: Rest, two: Rest): number {
  if (one === 'nothing' && two === 'nothing') return 0
  return one === 'letters' || (one === 'nothing' && two !== 'letters') ? -1 : 1
}

/** With the end. */
function segmentsOf(text: string): readonly Segment[] {
  const segments: Segment[] = []
  let at = 0
  for (const found of text.matchAll(/\d+|[A-Za-z]+/g)) {
    segments.push({ text: found[0], isNumber: found[0] < ':', before: found.index - at })
    at = found.index + found[0].length
  }
  return [...segments, { text: '', isNumber: false, before: text.length - at }]
}

function compareSegment(a: string, b: string, isNumber: boolean): number {
  const [left, right] = isNumber ? [a.replace(/^0+/, ''), b.replace(/^0+/, '')] : [a, b]
  if (isNumber && left.length !== right.length) return left.length - right.length
  return left === right ? 0 : left < right ? -1 : 1
}
