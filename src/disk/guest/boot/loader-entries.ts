import type { BootMenu, MenuEntry } from './menu.ts'

/** A file of loader/entries. Source: the Boot Loader Specification (UAPI.1), "Type #1 Boot Loader Specification Entries". */
export interface LoaderEntryFile {
  /** As `debian-6.1.0-18-amd64.conf`. */
  readonly name: string
  readonly text: string
}

const MAX_LINES = 1000
const MAX_VALUE = 4096

/** Keys of a file, each with the values that its lines give it, in their order. */
function keysOf(text: string): ReadonlyMap<string, readonly string[]> {
  const keys = new Map<string, string[]>()
  for (const line of text.slice(0, 256 * 1024).split('\n', MAX_LINES)) {
    const [, key, value] = /^\s*([\w-]{1,64})[ \t]+(.*?)\s*$/.exec(line.slice(0, MAX_VALUE + 100)) ?? []
    if (key === undefined || value === undefined) continue
    const values = keys.get(key) ?? []
    values.push(value)
    keys.set(key, values)
  }
  return keys
}

/** The entries in the order of the menu: the newest first. Those that start nothing are left out. */
export function readLoaderEntries(files: readonly LoaderEntryFile[]): readonly MenuEntry[] {
  const read = files.flatMap(({ name, text }) => {
    const keys = keysOf(text)
    const one = (key: string) => keys.get(key)?.at(-1) ?? ''
    const [linux, efi, uki] = [one('linux'), one('efi'), one('uki')]
    const kernel = linux || uki || efi
    if (kernel === '') return []
    const entry: MenuEntry = {
      title: one('title') || name.replace(/\.conf$/, ''),
      id: name.replace(/\.conf$/, ''),
      kernel,
      kind: linux === '' ? 'efi' : 'linux',
      arguments: (keys.get('options') ?? []).join(' ').slice(0, MAX_VALUE),
      initramfs: (keys.get('initrd') ?? []).slice(0, 16),
      root: null,
      notes: [],
    }
    return [
      {
        entry,
        sortKey: one('sort-key'),
        machine: one('machine-id'),
        version: one('version').slice(0, 256),
        counted: /\+0(?:-\d+)?$/.test(entry.id),
      },
    ]
  })
  // those that used up their tries come last; then with a sort-key before those without
  read.sort(
    (a, b) =>
      Number(a.counted) - Number(b.counted) ||
      Number(a.sortKey === '') - Number(b.sortKey === '') ||
      (a.sortKey === ''
        ? 0
        : ordered(a.sortKey, b.sortKey) || ordered(a.machine, b.machine) || -compareVersions(a.version, b.version)) ||
      -compareVersions(a.entry.id, b.entry.id),
  )
  return read.map(({ entry }) => entry)
}

const ordered = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/**
 * Which version is newer: runs of digits by their number, the rest by its characters, `~` before the end, the end before `-` and all else.
 * Source: Version Format Specification (UAPI.10).
 */
export function compareVersions(a: string, b: string): number {
  let [left, right] = [a, b]
  for (;;) {
    left = left.replace(/^[^A-Za-z0-9~^.-]+/, '')
    right = right.replace(/^[^A-Za-z0-9~^.-]+/, '')
    if (left.startsWith('~') !== right.startsWith('~')) return left.startsWith('~') ? -1 : 1
    if (left === '' || right === '') return left === right ? 0 : left === '' ? -1 : 1
    for (const mark of ['~', '-', '^', '.']) {
      if (left.startsWith(mark) !== right.startsWith(mark)) return left.startsWith(mark) ? -1 : 1
      if (left.startsWith(mark)) {
        left = left.slice(1)
        right = right.slice(1)
      }
    }
    const isNumber = /^\d/.test(left) || /^\d/.test(right)
    const pattern = isNumber ? /^\d*/ : /^[A-Za-z]*/
    const [x, y] = [pattern.exec(left)![0], pattern.exec(right)![0]]
    if (isNumber) {
      const [m, n] = [x.replace(/^0+/, ''), y.replace(/^0+/, '')]
      if (m.length !== n.length) return m.length - n.length
      if (m !== n) return m < n ? -1 : 1
    } else if (x !== y) {
      return ordered(x, y)
    }
    left = left.slice(x.length)
    right = right.slice(y.length)
  }
}

/**
 * What systemd-boot starts: of loader.conf `default`, a pattern of ids; else the first entry. Sources: loader.conf(5), systemd-boot(7).
 * @param unified programs of EFI/Linux, with their names as ids
 */
export function readSystemdBoot(loaderConf: string, entries: readonly MenuEntry[], unified: readonly MenuEntry[]): BootMenu {
  const notes: string[] = []
  const all = [...entries, ...[...unified].sort((a, b) => -compareVersions(a.id, b.id))]
  const wanted = keysOf(loaderConf).get('default')?.at(-1)
  if (wanted === '@saved') notes.push('loader.conf starts what was chosen last, which the firmware keeps')
  const matching = wanted === undefined || wanted.startsWith('@') ? undefined : matcher(wanted)
  const chosen = matching === undefined ? all[0] : (all.find(({ id }) => matching(`${id}.conf`) || matching(id)) ?? all[0])
  if (matching && chosen && !matching(`${chosen.id}.conf`) && !matching(chosen.id))
    notes.push(`loader.conf starts "${wanted}", which is not there: the first entry is started`)
  return { entries: all, chosen: chosen ?? null, notes, consoles: [] }
}

/** glob(7) with `*` and `?`; without a regular expression that a guest could make slow. */
function matcher(pattern: string): (text: string) => boolean {
  return (text) => {
    let [at, from, star, resume] = [0, 0, -1, 0]
    while (from < text.length) {
      const mark = pattern[at]
      if (mark === '*') {
        star = at
        at += 1
        resume = from
      } else if (mark !== undefined && (mark === '?' || mark.toLowerCase() === text[from]!.toLowerCase())) {
        at += 1
        from += 1
      } else if (star >= 0) {
        at = star + 1
        resume += 1
        from = resume
      } else return false
    }
    while (pattern[at] === '*') at += 1
    return at === pattern.length
  }
}
