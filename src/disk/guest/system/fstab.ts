/** A line of /etc/fstab: fstab(5). */
export interface FstabEntry {
  /** `UUID=…`, `/dev/vda1`, as it stands. */
  readonly source: string
  readonly path: string
  readonly type: string
  readonly options: readonly string[]
}

const MAX_ENTRIES = 256

/** The lines that make sense; the others are left out, as mount(8) does. */
export function parseFstab(text: string): readonly FstabEntry[] {
  const entries: FstabEntry[] = []
  for (const line of text.split('\n')) {
    const [source = '#', path, type, options = 'defaults'] = line.trim().split(/[ \t]+/)
    if (source.startsWith('#') || path === undefined || type === undefined) continue
    entries.push({ source: unquoted(unescaped(source)), path: unescaped(path), type, options: options.split(',') })
    if (entries.length >= MAX_ENTRIES) break
  }
  return entries
}

/** `\040` is a space. */
const unescaped = (word: string): string =>
  word.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

const unquoted = (source: string): string => source.replace(/="(.*)"$/, '=$1')
