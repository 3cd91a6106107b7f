/** How a list of definitions is sorted: `sortKey`, then the time of making, then what tells two apart; all in one direction. */
export interface Order<Key extends string> {
  readonly sortKey: Key
  readonly direction: 'asc' | 'desc'
}

type Value = string | number | null

/** A comparison by several values. Text without regard to case; what has no value comes first in ascending order. */
export function inOrder<T>(values: readonly ((thing: T) => Value)[], direction: 'asc' | 'desc'): (a: T, b: T) => number {
  const sign = direction === 'asc' ? 1 : -1
  return (a, b) => {
    for (const value of values) {
      const sorted = compare(value(a), value(b))
      if (sorted !== 0) return sign * sorted
    }
    return 0
  }
}

function compare(a: Value, b: Value): number {
  if (a === null || b === null) return Number(a !== null) - Number(b !== null)
  if (typeof a === 'number' && typeof b === 'number') return a - b
  const [left, right] = [String(a).toLowerCase(), String(b).toLowerCase()]
  return left < right ? -1 : Number(left > right)
}
