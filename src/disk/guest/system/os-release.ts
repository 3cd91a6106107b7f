/** Read at most; the real ones have less than 1 KiB. */
export const MAX_OS_RELEASE_BYTES = 64 * 1024
const MAX_VALUE_CHARACTERS = 1024
const MAX_FIELDS = 256

/**
 * The assignments of an os-release file, in its own words. Nothing is expanded or run: `$(…)` is text. The last of a name counts, as in a shell.
 * Source: os-release(5).
 */
export function parseOsRelease(text: string): ReadonlyMap<string, string> {
  const fields = new Map<string, string>()
  for (const line of text.split('\n')) {
    const found = /^\s*([A-Za-z_][A-Za-z0-9_]*)=(.*)$/.exec(line.trimEnd())
    if (!found) continue
    const [, name = '', written = ''] = found
    if (fields.size >= MAX_FIELDS && !fields.has(name)) break
    fields.set(name, unquoted(written).slice(0, MAX_VALUE_CHARACTERS))
  }
  return fields
}

/** Single quotes keep everything; in double quotes a backslash keeps `"`, `$`, `` ` `` and itself. */
function unquoted(written: string): string {
  if (written.startsWith("'")) return written.slice(1).split("'")[0]!
  if (!written.startsWith('"')) return written.replace(/\\(.)/g, '$1')
  const inside = /^"((?:[^"\\]|\\.)*)/.exec(written)?.[1] ?? ''
  return inside.replace(/\\(["$`\\])/g, '$1')
}
