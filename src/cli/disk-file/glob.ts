import { UsageError } from '../exit-codes.ts'

/**
 * A pattern of file names as an expression: `*` and `?` within a name, `**` over folders, `[abc]`, `[!abc]`, `{a,b}`. Hidden names are names
 * like others. What does not close stands for itself.
 * @throws UsageError for a set that is none. Source: glob(7), and the `**` of shells.
 */
export function globExpression(pattern: string): RegExp {
  let source = ''
  let open = 0
  for (let at = 0; at < pattern.length; at += 1) {
    const character = pattern[at]!
    const set = character === '[' ? /^\[(!?)(\]?[^\]/]*)\]/.exec(pattern.slice(at)) : null
    if (pattern.startsWith('**/', at)) {
      source += '(?:.*/)?'
      at += 2
    } else if (pattern.startsWith('**', at)) {
      source += '.*'
      at += 1
    } else if (character === '*') source += '[^/]*'
    else if (character === '?') source += '[^/]'
    else if (set) {
      source += `[${set[1] === '!' ? '^/' : ''}${set[2]!.replace(/[\\\]^[]/g, '\\$&')}]`
      at += set[0].length - 1
    } else if (character === '{' && pattern.indexOf('}', at) > 0) {
      source += '(?:'
      open += 1
    } else if (character === '}' && open > 0) {
      source += ')'
      open -= 1
    } else if (character === ',' && open > 0) source += '|'
    else source += character.replace(/[\\^$.|?*+()[\]{}/]/g, '\\$&')
  }
  try {
    return new RegExp(`^${source}${')'.repeat(open)}$`, 'su')
  } catch {
    throw new UsageError(`"${pattern}" is no pattern: in a set like [a-z] the first comes before the last`)
  }
}
