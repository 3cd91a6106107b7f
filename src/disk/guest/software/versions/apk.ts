/**
 * The order of Alpine's versions, `1.2.3a_rc1~0123abc-r4`: negative where `a` is older. Source: apk-package(5), "PACKAGE VERSIONS"; apk-tools from
 * 2.14.1. Any text has a place in it: what is no version any more comes last.
 */
export function compareApk(a: string, b: string): number {
  const [left, right] = [tokensOf(a), tokensOf(b)]
  for (let at = 0; ; at += 1) {
    const [one, two] = [left[at]!, right[at]!]
    if (one.rank === two.rank) {
      if (one.rank >= rank.end) return 0
      const difference = compareToken(one, two)
      if (difference !== 0) return difference
      continue
    }
    if (isBefore(one)) return -1
    if (isBefore(two)) return 1
    return two.rank - one.rank
  }
}

const rank = { first: 0, number: 1, letter: 2, suffix: 3, suffixNumber: 4, hash: 5, revision: 6, end: 7, invalid: 8 } as const
type Rank = (typeof rank)[keyof typeof rank]
interface Token {
  readonly rank: Rank
  readonly text: string
}

/** Suffixes of what is not released yet come before nothing, the others after. */
const suffixes: readonly string[] = ['alpha', 'beta', 'pre', 'rc', '', 'cvs', 'svn', 'git', 'hg', 'p']
const NO_SUFFIX = suffixes.indexOf('')
const isBefore = ({ rank: which, text }: Token): boolean => which === rank.suffix && suffixes.indexOf(text) < NO_SUFFIX

/** What may follow what; the first that matches is taken. */
const grammar: readonly { readonly rank: Rank; readonly after: readonly Rank[]; readonly text: RegExp }[] = [
  { rank: rank.first, after: [], text: /(\d+)/y },
  { rank: rank.number, after: [rank.first, rank.number], text: /\.(\d+)/y },
  { rank: rank.letter, after: [rank.first, rank.number], text: /([a-z])/y },
  {
    rank: rank.suffix,
    after: [rank.first, rank.number, rank.letter, rank.suffix, rank.suffixNumber],
    text: /_(alpha|beta|pre|rc|cvs|svn|git|hg|p)(?![a-z])/y,
  },
  { rank: rank.suffixNumber, after: [rank.suffix], text: /(\d+)/y },
  { rank: rank.hash, after: [rank.first, rank.number, rank.letter, rank.suffix, rank.suffixNumber], text: /~([0-9a-f]+)/y },
  {
    rank: rank.revision,
    after: [rank.first, rank.number, rank.letter, rank.suffix, rank.suffixNumber, rank.hash],
    text: /-r(\d+)/y,
  },
]

/** Always with an end, or with what is not understood. */
function tokensOf(version: string): readonly Token[] {
  const tokens: Token[] = []
  for (let at = 0; at < version.length; ) {
    const before = tokens.at(-1)?.rank
    const token = grammar.flatMap(({ rank: which, after, text }) => {
      if (before === undefined ? which !== rank.first : !after.includes(before)) return []
      text.lastIndex = at
      const found = text.exec(version)
      return found ? [{ rank: which, text: found[1]!, end: text.lastIndex }] : []
    })[0]
    if (!token) return [...tokens, { rank: rank.invalid, text: version.slice(at) }]
    tokens.push(token)
    at = token.end
  }
  return [...tokens, { rank: rank.end, text: '' }]
}

function compareToken({ rank: which, text: a }: Token, { text: b }: Token): number {
  if (which === rank.suffix) return suffixes.indexOf(a) - suffixes.indexOf(b)
  const isText =
    which === rank.hash || which === rank.letter || (which === rank.number && (a.startsWith('0') || b.startsWith('0')))
  if (isText) return a === b ? 0 : a < b ? -1 : 1
  const [left, right] = [a.replace(/^0+/, ''), b.replace(/^0+/, '')]
  if (left.length !== right.length) return left.length - right.length
  return left === right ? 0 : left < right ? -1 : 1
}
