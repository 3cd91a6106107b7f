import { type ErrorDetails, ServiceError } from '../../../base/errors.ts'

/** An element. Names are local names, as everything that matters here differs by them; `space` is the namespace. */
export interface Element {
  readonly space: string
  readonly name: string
  /** By `namespace|local name`; see `attributeOf`. */
  readonly attributes: ReadonlyMap<string, string>
  readonly children: readonly Element[]
  /** The character data right in it, not in its children. */
  readonly text: string
}

/** Why an OVF package was refused: stable words for clients, in `details.reason`. */
export type OvfRefusal =
  | 'malformed'
  | 'unsupported'
  | 'hostile-xml'
  | 'external-reference'
  | 'missing-file'
  | 'wrong-digest'
  | 'truncated'
export const refuseOvf = (reason: OvfRefusal, problem: string, details: ErrorDetails = {}): ServiceError =>
  new ServiceError(reason === 'unsupported' ? 'unsupported' : 'invalid-image', `ovf: ${problem}`, {
    format: 'ovf',
    reason,
    ...details,
  })

export const MAX_XML_BYTES = 1024 * 1024 // real descriptors have 4 to 200 KiB
const MAX_DEPTH = 64
const MAX_ELEMENTS = 20_000
const MAX_ATTRIBUTES = 64
const entities: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" }
const NAME = /[\p{L}_][\p{L}\p{N}_.-]*(?::[\p{L}_][\p{L}\p{N}_.-]*)?/uy
const SPACE = /[ \t\r\n]+/y
const XML_SPACE = 'http://www.w3.org/XML/1998/namespace'
const FORBIDDEN = /(?![\t\n\r])[\p{Cc}\p{Cs}\ufffe\uffff]/u // control characters, halves of characters

/**
 * Reads a document of XML 1.0 with namespaces, in UTF-8. No document type, and so no entities besides the five that XML has; no
 * processing instructions; at most 1 MiB, 64 levels, 20,000 elements and 64 attributes of each. Time is in proportion to the length.
 * @throws ServiceError `invalid-image`, with the place
 */
export function parseXml(bytes: Uint8Array): Element {
  if (bytes.length > MAX_XML_BYTES)
    throw refuseOvf('hostile-xml', `the descriptor has ${bytes.length} bytes; ${MAX_XML_BYTES} is the limit`, {
      max: MAX_XML_BYTES,
    })
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw refuseOvf('malformed', 'the descriptor is not UTF-8')
  }
  return new Parser(text).document()
}

interface Open {
  readonly tag: string
  readonly spaces: ReadonlyMap<string, string>
  readonly element: { space: string; name: string; attributes: Map<string, string>; children: Element[]; text: string }
}

class Parser {
  readonly #text: string
  #at = 0
  #elements = 0

  constructor(text: string) {
    this.#text = text
    const at = text.search(FORBIDDEN)
    if (at >= 0) throw refuseOvf('malformed', `a character that XML forbids, at character ${at}`, { at })
  }

  document(): Element {
    this.#declaration()
    this.#misc()
    const root = this.#tree()
    this.#misc()
    if (this.#at < this.#text.length) throw this.#bad('something follows the end of the document')
    return root
  }

  #bad(problem: string, reason: OvfRefusal = 'malformed'): ServiceError {
    return refuseOvf(reason, `${problem}, at character ${this.#at} of the descriptor`, { at: this.#at })
  }
  #has(text: string): boolean {
    return this.#text.startsWith(text, this.#at)
  }
  #skip(text: string): boolean {
    if (!this.#has(text)) return false
    this.#at += text.length
    return true
  }
  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)?.[0] ?? ''
    this.#at += found.length
    return found
  }
  /** What is before `end`, which is skipped as well. */
  #upTo(end: string, what: string): string {
    const to = this.#text.indexOf(end, this.#at)
    if (to < 0) throw this.#bad(`${what} has no end`)
    const text = this.#text.slice(this.#at, to)
    this.#at = to + end.length
    return text
  }

  #declaration(): void {
    if (!this.#skip('<?xml')) return
    const text = this.#upTo('?>', 'the XML declaration')
    const known =
      /^\s+version\s*=\s*["']1\.[01]["'](?:\s+encoding\s*=\s*["']([A-Za-z0-9._-]+)["'])?(?:\s+standalone\s*=\s*["'](?:yes|no)["'])?\s*$/.exec(
        text,
      )
    if (!known) throw this.#bad('the XML declaration is not one of XML 1.0')
    if (known[1] !== undefined && !/^(?:utf-8|us-ascii|ascii)$/i.test(known[1]))
      throw this.#bad(`the descriptor is in ${known[1]}; UTF-8 is read`)
  }

  /** Between elements at the top: spaces and comments. */
  #misc(): void {
    for (;;) {
      this.#match(SPACE)
      if (!this.#comment()) break
    }
    if (this.#has('<!')) throw this.#bad('a document type declaration', 'hostile-xml')
    if (this.#has('<?')) throw this.#bad('a processing instruction', 'hostile-xml')
  }
  #comment(): boolean {
    if (!this.#skip('<!--')) return false
    if (this.#upTo('-->', 'a comment').includes('--')) throw this.#bad('a comment has "--" in it')
    return true
  }

  #tree(): Element {
    const open: Open[] = []
    for (;;) {
      const top = open.at(-1)
      if (top && !this.#has('<')) top.element.text += this.#characters()
      else if (top && this.#skip('</')) {
        const tag = this.#match(NAME)
        this.#match(SPACE)
        if (tag !== top.tag || !this.#skip('>')) throw this.#bad(`"${top.tag.slice(0, 60)}" is not closed`)
        open.pop()
        if (open.length === 0) return top.element
      } else if (top && this.#skip('<![CDATA[')) top.element.text += this.#upTo(']]>', 'a CDATA section')
      else if (top && this.#comment()) continue
      else if (this.#has('<!')) throw this.#bad('a declaration', 'hostile-xml')
      else if (this.#has('<?')) throw this.#bad('a processing instruction', 'hostile-xml')
      else {
        const { next, isEmpty } = this.#startTag(top)
        top?.element.children.push(next.element)
        if (!isEmpty) open.push(next)
        else if (!top) return next.element
        if (open.length > MAX_DEPTH) throw this.#bad(`elements are nested more than ${MAX_DEPTH} deep`, 'hostile-xml')
      }
    }
  }

  #characters(): string {
    const to = this.#text.indexOf('<', this.#at)
    if (to < 0) throw this.#bad('the document ends in the middle')
    const raw = this.#text.slice(this.#at, to)
    if (raw.includes(']]>')) throw this.#bad('"]]>" outside of a CDATA section')
    const text = this.#resolved(raw)
    this.#at = to
    return text
  }

  /** A text with its references replaced: each by one character, so that nothing grows. */
  #resolved(raw: string): string {
    if (!raw.includes('&')) return raw
    return raw.replace(/&([^;&]{0,12})(;?)/g, (_, name: string, end: string) => {
      const known = Object.hasOwn(entities, name) ? entities[name] : undefined
      const number = /^#(?:([0-9]{1,7})|x([0-9a-fA-F]{1,6}))$/.exec(name)
      const code = number ? Number.parseInt(number[1] ?? number[2] ?? '', number[1] === undefined ? 16 : 10) : undefined
      if (end === ';' && known !== undefined) return known
      if (end === ';' && code !== undefined && code <= 0x10ffff && !FORBIDDEN.test(String.fromCodePoint(code)))
        return String.fromCodePoint(code)
      throw this.#bad(`the reference "&${name}" is none of the five that XML has`, 'hostile-xml')
    })
  }

  #startTag(parent: Open | undefined): { readonly next: Open; readonly isEmpty: boolean } {
    if (!this.#skip('<')) throw this.#bad('an element was expected')
    const tag = this.#match(NAME)
    if (tag === '') throw this.#bad('an element has no name')
    this.#elements += 1
    if (this.#elements > MAX_ELEMENTS) throw this.#bad(`more than ${MAX_ELEMENTS} elements`, 'hostile-xml')
    const { plain, spaces } = this.#attributes(parent?.spaces ?? new Map([['xml', XML_SPACE]]))
    const isEmpty = this.#skip('/>')
    if (!isEmpty && !this.#skip('>')) throw this.#bad(`the start of "${tag.slice(0, 60)}" has no end`)
    const [prefix, name] = this.#split(tag)
    const space = prefix === '' ? (spaces.get('') ?? '') : this.#spaceOf(prefix, spaces)
    const attributes = new Map<string, string>()
    for (const [full, value] of plain) {
      const [attributePrefix, local] = this.#split(full)
      const key = `${attributePrefix === '' ? '' : this.#spaceOf(attributePrefix, spaces)}|${local}`
      if (attributes.has(key)) throw this.#bad(`the attribute "${full.slice(0, 60)}" is there twice`)
      attributes.set(key, value)
    }
    return { next: { tag, spaces, element: { space, name, attributes, children: [], text: '' } }, isEmpty }
  }

  #attributes(outer: ReadonlyMap<string, string>) {
    const plain: [string, string][] = []
    let spaces = outer
    let count = 0
    for (;;) {
      const gap = this.#match(SPACE)
      if (this.#has('>') || this.#has('/>')) return { plain, spaces }
      const name = this.#match(NAME)
      if (gap === '' || name === '') throw this.#bad('an attribute was expected')
      count += 1
      if (count > MAX_ATTRIBUTES) throw this.#bad(`an element has more than ${MAX_ATTRIBUTES} attributes`, 'hostile-xml')
      this.#match(SPACE)
      if (!this.#skip('=')) throw this.#bad(`the attribute "${name.slice(0, 60)}" has no value`)
      this.#match(SPACE)
      const quote = this.#skip('"') ? '"' : this.#skip("'") ? "'" : undefined
      if (quote === undefined) throw this.#bad(`the value of "${name.slice(0, 60)}" is not in quotes`)
      const raw = this.#upTo(quote, 'the value of an attribute')
      if (raw.includes('<')) throw this.#bad(`the value of "${name.slice(0, 60)}" has "<" in it`)
      const value = this.#resolved(raw.replace(/[\t\r\n]/g, ' '))
      if (name === 'xmlns' || name.startsWith('xmlns:')) {
        const prefix = name.slice(6)
        if (spaces === outer) spaces = new Map(outer)
        if (prefix === 'xml' || prefix === 'xmlns') throw this.#bad(`the prefix "${prefix}" cannot be declared`)
        ;(spaces as Map<string, string>).set(prefix, value)
        if (spaces.size > MAX_ATTRIBUTES) throw this.#bad(`more than ${MAX_ATTRIBUTES} prefixes are declared`, 'hostile-xml')
      } else plain.push([name, value])
    }
  }

  #split(name: string): readonly [prefix: string, local: string] {
    const at = name.indexOf(':')
    return at < 0 ? ['', name] : [name.slice(0, at), name.slice(at + 1)]
  }
  #spaceOf(prefix: string, spaces: ReadonlyMap<string, string>): string {
    const space = spaces.get(prefix)
    if (space === undefined || space === '') throw this.#bad(`the prefix "${prefix.slice(0, 60)}" is not declared`)
    return space
  }
}

export const childrenOf = (element: Element | undefined, name: string): readonly Element[] =>
  element?.children.filter((child) => child.name === name) ?? []
export const childOf = (element: Element | undefined, name: string): Element | undefined => childrenOf(element, name)[0]
/** Without the spaces around it; empty where it is not there. */
export const textOf = (element: Element | undefined, name: string): string => childOf(element, name)?.text.trim() ?? ''
/** An attribute without a namespace, or of the element's own, or of any other: in this order. */
export function attributeOf(element: Element, name: string): string | undefined {
  const own = element.attributes.get(`|${name}`) ?? element.attributes.get(`${element.space}|${name}`)
  if (own !== undefined) return own
  for (const [key, value] of element.attributes) if (key.endsWith(`|${name}`)) return value
  return undefined
}
/** A text as it stands in an element or an attribute in quotes. */
export const escaped = (text: string): string =>
  text.replace(/[<>&"']/g, (sign) => `&${Object.keys(entities).find((name) => entities[name] === sign)};`)
