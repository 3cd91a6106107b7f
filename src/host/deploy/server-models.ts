/** Of a machine and of its main board, as maker and product: what DMI has. */
export interface ModelName {
  readonly maker: string
  readonly product: string
}

/** Bounds what a property of 64 KiB can cost. */
const MAX_PATTERNS = 1000

/** `Dell Inc./PowerEdge R7*; X11DPi-N*` → its patterns. */
export const patternsIn = (property: string): readonly string[] =>
  property
    .split(';')
    .map((pattern) => pattern.trim())
    .filter(Boolean)
    .slice(0, MAX_PATTERNS)

/** `maker/product`, or a product of any maker. Case does not count; `*` stands for any text, `?` for one character. */
export function isModel(pattern: string, { maker, product }: ModelName): boolean {
  const slash = pattern.indexOf('/')
  if (slash < 0) return matches(pattern, product)
  return matches(pattern.slice(0, slash).trim(), maker) && matches(pattern.slice(slash + 1).trim(), product)
}

/** Goes back to the last star only, so that no pattern takes longer than its length times the text's. */
function matches(pattern: string, text: string): boolean {
  const [wanted, found] = [pattern.toLowerCase(), text.toLowerCase()]
  let [at, from] = [0, 0]
  let star: { readonly at: number; from: number } | undefined
  while (from < found.length) {
    if (wanted[at] === '*') {
      star = { at, from }
      at += 1
    } else if (at < wanted.length && (wanted[at] === '?' || wanted[at] === found[from])) {
      at += 1
      from += 1
    } else if (star) {
      star.from += 1
      at = star.at + 1
      from = star.from
    } else return false
  }
  while (wanted[at] === '*') at += 1
  return at === wanted.length
}
