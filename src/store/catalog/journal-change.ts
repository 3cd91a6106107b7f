import type { ImageMember, ImageRecord } from './catalog.ts'

/** One changed record, whole: a journal line. Doing it twice is the same as doing it once; docs/catalog.md has the format. */
export type JournalChange =
  | { readonly image: ImageRecord }
  | { readonly member: ImageMember }
  | { readonly memberDeleted: { readonly imageId: string; readonly memberId: string } }
  | { readonly document: JournalDocument }
  | { readonly documentDeleted: { readonly kind: string; readonly key: string } }

export interface JournalDocument {
  readonly kind: string
  readonly key: string
  readonly version: number
  readonly body: unknown
  readonly indexes: Readonly<Record<string, string>>
  readonly unique: Readonly<Record<string, string>>
  readonly expiresAt: number | null
}

/** Takes the changes of one transaction, in the order in which they were made. */
export type RecordChange = (change: JournalChange) => void
