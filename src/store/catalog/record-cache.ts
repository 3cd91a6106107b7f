import type { ImageRecord } from './catalog.ts'

const MAX_TEXT_CHARACTERS = 8 * 1024 * 1024 // some 24 MB as objects: 6,000 usual images

/** Decoded records by row and version, the lately used ones: parsing costs more than finding. Only for committed rows. */
export class RecordCache {
  readonly #records = new Map<number, { readonly version: number; readonly characters: number; readonly image: ImageRecord }>()
  #characters = 0

  decode(seq: number, version: number, text: string): ImageRecord {
    const known = this.#records.get(seq)
    if (known) this.#forget(seq, known.characters)
    const image = known?.version === version ? known.image : decodeRecord(text)
    this.#records.set(seq, { version, characters: text.length, image })
    this.#characters += text.length
    if (this.#characters > MAX_TEXT_CHARACTERS) this.#shrink()
    return image
  }

  #shrink(): void {
    for (const [seq, { characters }] of this.#records) {
      if (this.#characters <= MAX_TEXT_CHARACTERS) return
      this.#forget(seq, characters)
    }
  }

  #forget(seq: number, characters: number): void {
    this.#records.delete(seq)
    this.#characters -= characters
  }
}

/** Frozen, because many readers are given the same one. */
export function decodeRecord(text: string): ImageRecord {
  const image = JSON.parse(text) as ImageRecord // written by `imageRow`
  Object.freeze(image.tags)
  Object.freeze(image.properties)
  Object.freeze(image.notes)
  return Object.freeze(image)
}
