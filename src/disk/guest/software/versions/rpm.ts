/**
 * The order of rpm's versions, `[epoch:]version[-release]`: negative where `a` is older. A release counts where both have one. Source: rpm,
 * docs/man/rpm-version.7, "Version comparison"; rpm.vercmp. Any text has a place in it.
 */
export function compareRpm(a: string, b: string): number {
  const [left, right] = [partsOf(a), partsOf(b)]
  return left.epoch - right.epoch || compareSegments(left.version, right.version) || compareReleases(left.release, right.release)
}

function partsOf(text: string): { epoch: number; version: string; release: string | null } {
  const colon = text.indexOf(':')
  const epoch = colon > 0 && /^\d+$/.test(text.slice(0, colon)) ? Number(text.slice(0, colon)) : 0
  const rest = text.slice(colon + 1)
  const dash = rest.lastIndexOf('-')
  return { epoch, version: dash < 0 ? rest : rest.slice(0, dash), release: dash < 0 ? null : rest.slice(dash + 1) }
}

const compareReleases = (a: string | null, b: string | null): number => (a === null || b === null ? 0 : compareSegments(a, b))

/** Runs of digits and of letters in turn; what is neither parts them. `~` is before the end, `^` after it and before all else. */
function compareSegments(a: string, b: string): number {
  const [left, right] = [segmentsOf(a), segmentsOf(b)]
  for (let at = 0; at < Math.max(left.length, right.length); at += 1) {
    const [one, two] = [left[at], right[at]]
    if (one === two) continue
    if (one === '~' || two === '~') return one === '~' ? -1 : 1
    if (one === undefined || two === undefined) return one === undefined ? -1 : 1
    if (one === '^' || two === '^') return one === '^' ? -1 : 1
    const difference = compareSegment(one, two)
    if (difference !== 0) return difference
  }
  return 0
}

const segmentsOf = (text: string): readonly string[] => text.match(/\d+|[A-Za-z]+|[~^]/g) ?? []

/** A number is newer than letters. */
function compareSegment(a: string, b: string): number {
  const [isNumberA, isNumberB] = [isNumber(a), isNumber(b)]
  if (isNumberA !== isNumberB) return isNumberA ? 1 : -1
  return isNumberA ? compareNumbers(a, b) : a === b ? 0 : a < b ? -1 : 1
}

const isNumber = (text: string): boolean => text >= '0' && text < ':'

/** Of any length. */
function compareNumbers(a: string, b: string): number {
  const [left, right] = [a.replace(/^0+/, ''), b.replace(/^0+/, '')]
  if (left.length !== right.length) return left.length - right.length
  return left === right ? 0 : left < right ? -1 : 1
}
