/**
 * The order of Debian's versions, `[epoch:]upstream[-revision]`: negative where `a` is older. Source: deb-version(7), "Sorting algorithm".
 * Any text has a place in it, also one that is no version.
 */
export function compareDebian(a: string, b: string): number {
  const [left, right] = [partsOf(a), partsOf(b)]
  return left.epoch - right.epoch || comparePart(left.upstream, right.upstream) || comparePart(left.revision, right.revision)
}

function partsOf(version: string): { epoch: number; upstream: string; revision: string } {
  const colon = version.indexOf(':')
  const epoch = colon > 0 && /^\d+$/.test(version.slice(0, colon)) ? Number(version.slice(0, colon)) : 0
  const rest = colon < 0 ? version : version.slice(colon + 1)
  const dash = rest.lastIndexOf('-')
  return { epoch, upstream: dash < 0 ? rest : rest.slice(0, dash), revision: dash < 0 ? '' : rest.slice(dash + 1) }
}

/** Turns of what is not digits, by letters first and `~` before the end; and of numbers. */
function comparePart(a: string, b: string): number {
  let [i, j] = [0, 0]
  while (i < a.length || j < b.length) {
    while ((i < a.length && !isDigit(a, i)) || (j < b.length && !isDigit(b, j))) {
      const difference = weight(a, i) - weight(b, j)
      if (difference !== 0) return difference
      i += 1
      j += 1
    }
    while (a[i] === '0') i += 1
    while (b[j] === '0') j += 1
    const [from, start] = [i, j]
    while (isDigit(a, i)) i += 1
    while (isDigit(b, j)) j += 1
    if (i - from !== j - start) return i - from - (j - start)
    const [left, right] = [a.slice(from, i), b.slice(start, j)]
    if (left !== right) return left < right ? -1 : 1
  }
  return 0
}

const isDigit = (text: string, at: number): boolean => at < text.length && text.charCodeAt(at) >= 48 && text.charCodeAt(at) <= 57

function weight(text: string, at: number): number {
  if (at >= text.length || isDigit(text, at)) return 0
  if (text[at] === '~') return -1
  const code = text.charCodeAt(at)
  return /[A-Za-z]/.test(text[at]!) ? code : code + 256
}
