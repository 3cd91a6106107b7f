/**
 * Whether `name` matches `pattern`, in which `*` stands for any run of characters and all else for itself, in the same case.
 * Costs at most `name.length × pattern.length` comparisons and no memory: no name makes it slow, as some do a regular expression.
 */
export function matchesPattern(name: string, pattern: string): boolean {
  let [at, inPattern] = [0, 0]
  let [star, resume] = [-1, 0]
  while (at < name.length) {
    if (pattern[inPattern] === '*') {
      star = inPattern
      resume = at
      inPattern += 1
    } else if (pattern[inPattern] === name[at]) {
      at += 1
      inPattern += 1
    } else if (star >= 0) {
      resume += 1
      at = resume
      inPattern = star + 1
    } else return false
  }
  while (pattern[inPattern] === '*') inPattern += 1
  return inPattern === pattern.length
}
