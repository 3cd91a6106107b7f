import type { BootMenu, MenuEntry } from './menu.ts'

const MAX_LINES = 20_000
const MAX_ENTRIES = 500
const MAX_VALUE = 4096

interface Label {
  readonly name: string
  title: string
  kernel: string
  kind: MenuEntry['kind']
  append: string | undefined
  initrd: string[]
  isDefault: boolean
}

/**
 * What a syslinux.cfg or extlinux.conf starts: `DEFAULT`, `LABEL`, `KERNEL`, `LINUX`, `APPEND`, `INITRD`, `SAY` and the menu's own words.
 * Included files are not followed: a note names them. Takes any text. Source: Syslinux, doc/syslinux.txt; doc/menu.txt.
 */
export function readSyslinuxConfig(text: string): BootMenu {
  const labels: Label[] = []
  const notes: string[] = []
  const consoles: string[] = []
  let [wanted, append] = ['', '']
  for (const line of text.split('\n', MAX_LINES)) {
    const [, key = '', rest = ''] = /^\s*(\S+)(?:\s+(.*?))?\s*$/.exec(line.slice(0, MAX_VALUE + 100)) ?? []
    const label = labels.at(-1)
    switch (key.toLowerCase()) {
      case 'default':
        if (!/\.c32\b/.test(rest)) wanted = rest
        break
      case 'ontimeout':
        if (rest !== '') wanted = rest
        break
      case 'serial':
        consoles.push('serial')
        break
      case 'label':
        if (labels.length < MAX_ENTRIES)
          labels.push({ name: rest, title: rest, kernel: '', kind: 'linux', append: undefined, initrd: [], isDefault: false })
        break
      case 'include':
        if (notes.length < 20) notes.push(`it includes ${rest}, which was not looked at`)
        break
      case 'menu': {
        const [, word = '', value = ''] = /^(\S+)(?:\s+(.*))?$/.exec(rest) ?? []
        if (label && word.toLowerCase() === 'label') label.title = value.replaceAll('^', '')
        if (label && word.toLowerCase() === 'default') label.isDefault = true
        if (word.toLowerCase() === 'include' && notes.length < 20) notes.push(`it includes ${value}, which was not looked at`)
        break
      }
      case 'append':
        if (label) label.append = rest === '-' ? '' : rest
        else append = rest
        break
      case 'kernel':
      case 'linux':
        if (label) Object.assign(label, { kernel: rest, kind: /\.c32$/i.test(rest) ? 'other' : 'linux' })
        break
      case 'initrd':
        if (label) label.initrd = rest.split(',').slice(0, 16)
        break
      case 'localboot':
      case 'boot':
      case 'com32':
        if (label) Object.assign(label, { kernel: '', kind: 'other' })
    }
  }
  const entries = labels.map((label) => entryOf(label, append))
  const marked = labels.findIndex(({ isDefault }) => isDefault)
  const [name = '', ...words] = wanted.split(/\s+/)
  const named = labels.findIndex((label) => label.name.toLowerCase() === name.toLowerCase())
  const chosen = entries[marked >= 0 ? marked : named] ?? (name === '' ? null : commandEntry(name, words))
  return { entries, chosen, notes, consoles }
}

function entryOf({ name, title, kernel, kind, append, initrd }: Label, common: string): MenuEntry {
  const words = (append ?? common).split(/\s+/).filter((word) => word !== '')
  const inside = words.filter((word) => /^initrd=/i.test(word)).flatMap((word) => word.slice('initrd='.length).split(','))
  return {
    title,
    id: name,
    kernel: kernel === '' ? null : kernel,
    kind,
    arguments: words.filter((word) => !/^initrd=/i.test(word)).join(' '),
    initramfs: (initrd.length > 0 ? initrd : inside).slice(0, 16),
    root: null,
    notes: [],
  }
}

/** Syslinux takes `DEFAULT vmlinuz root=…` for a command where no label has that name. */
const commandEntry = (name: string, words: readonly string[]): MenuEntry =>
  entryOf({ name, title: name, kernel: name, kind: 'linux', append: words.join(' '), initrd: [], isDefault: true }, '')
