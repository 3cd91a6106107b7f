import type { ImageQuery, ImageRecord } from './catalog.ts'
import { KeptAnswers } from './kept-answers.ts'
import { SqlImageReader } from './sql-images.ts'

const MAX_CHARACTERS = 8 * 1024 * 1024 // of the records in kept lists: 300 lists of 25 usual images

/** Committed images. A list that was asked for before is the same array until an image or a membership changes. */
export class CachedImages extends SqlImageReader {
  #lists = new KeptAnswers<readonly ImageRecord[]>(MAX_CHARACTERS)

  /** To be called in the same step as a commit that changes an image or a member. */
  forgetLists(): void {
    this.#lists = new KeptAnswers(MAX_CHARACTERS)
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
