import type { MenuEntry } from './menu.ts'

/** What is in a menu of GRUB: an entry, or a menu. */
export interface MenuItem {
  readonly title: string
  readonly id: string
  readonly entry: MenuEntry | undefined
  readonly submenu: readonly MenuItem[]
}

/** Before what is not known: a character for private use, which no honest configuration has. */
export const UNKNOWN = '\ue000$'
export const isKnown = (text: string): boolean => !text.includes(UNKNOWN)
export const inert = (text: string): string => text.replaceAll(UNKNOWN, '$')
export const unknownIn = (words: readonly string[]): string[] =>
  [...words.join(' ').matchAll(/\ue000\$\{([^}]*)\}/g)].map(([, name]) => name!)

export const itemOf = ({ title, id }: MenuEntry) => ({ title, id, submenu: [] })

export function titleOf(words: readonly string[]): { title: string; id: string } {
  let title: string | undefined
  let id = ''
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at]!
    if (word === '--id') {
      at += 1
      id = words[at] ?? ''
    } else if (word.startsWith('--id=')) id = word.slice('--id='.length)
    else if (/^--(class|users|hotkey|source)$/.test(word)) at += 1
    else if (!word.startsWith('--')) title ??= word
  }
  return { title: inert(title ?? ''), id: inert(id) }
}

export function* flat(items: readonly MenuItem[]): Generator<MenuEntry> {
  for (const { entry, submenu } of items) {
    if (entry) yield cleaned(entry)
    yield* flat(submenu)
  }
}

const cleaned = (entry: MenuEntry): MenuEntry => ({
  ...entry,
  kernel: entry.kernel === null ? null : inert(entry.kernel),
  arguments: inert(entry.arguments),
  initramfs: entry.initramfs.map(inert),
})

export function firstOf(items: readonly MenuItem[]): MenuEntry | null {
  const [first] = flat(items)
  return first ?? null
}

export function entryNamed(items: readonly MenuItem[], wanted: string, depth: number): MenuEntry | null {
  const at = wanted.indexOf('>')
  // a title may have the mark itself, doubled
  const [head, tail] =
    at < 0 || wanted[at + 1] === '>' ? [wanted.replaceAll('>>', '>'), ''] : [wanted.slice(0, at), wanted.slice(at + 1)]
  const found = /^\d{1,6}$/.test(head) ? items[Number(head)] : items.find(({ title, id }) => id === head || title === head)
  if (!found || depth > 8) return null
  if (found.entry) return cleaned(found.entry)
  return tail === '' ? firstOf(found.submenu) : entryNamed(found.submenu, tail, depth + 1)
}
