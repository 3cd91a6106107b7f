import type { ImageQuery, ImageRecord } from './catalog.ts'
import { KeptAnswers } from './kept-answers.ts'
import { SqlImageReader } from './sql-images.ts'

const MAX_LIST_CHARACTERS = 8 * 1024 * 1024 // of the records in kept lists: 300 lists of 25 usual images
const MAX_IMAGE_CHARACTERS = 2 * 1024 * 1024

/** Committed images. What was asked for before is the same object until an image or a membership changes. */
export class CachedImages extends SqlImageReader {
  #lists = new KeptAnswers<readonly ImageRecord[]>(MAX_LIST_CHARACTERS)
  #images = new KeptAnswers<ImageRecord>(MAX_IMAGE_CHARACTERS)

  /** To be called in the same step as a commit that changes an image or a member. */
  forget(): void {
    this.#lists = new KeptAnswers(MAX_LIST_CHARACTERS)
    this.#images = new KeptAnswers(MAX_IMAGE_CHARACTERS)
  }

  override async get(id: string): Promise<ImageRecord | undefined> {
    const images = this.#images
    const known = images.get(id)
    if (known) return known
    const row = await this.row(id)
    if (!row) return undefined
    const image = this.decode(row)
    images.keep(id, image, row.record.length)
    return image
  }

  override async list(query: ImageQuery): Promise<readonly ImageRecord[]> {
    const lists = this.#lists
    const question = JSON.stringify(query)
    const known = lists.get(question)
    if (known) return known
    const rows = await this.listed(query)
    const images = Object.freeze(rows.map(this.decode))
    lists.keep(
      question,
      images,
      rows.reduce((sum, { record }) => sum + record.length, 0),
    )
    return images
  }
}
