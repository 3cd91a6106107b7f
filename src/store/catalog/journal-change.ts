import { ephemeralKinds, type ImageMember, type ImageRecord } from './catalog.ts'

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

/** Takes the changes of one transaction, in the order in which they were made; those of ephemeral kinds too. */
export type RecordChange = (change: JournalChange) => void

/** Whether a lost database gets it back. */
export function isJournalled(change: JournalChange): boolean {
  const kind = documentKindOf(change)
  return kind === undefined || !ephemeralKinds.has(kind)
}

/** Undefined for a change of an image or a member. */
export function documentKindOf(change: JournalChange): string | undefined {
  if ('document' in change) return change.document.kind
  return 'documentDeleted' in change ? change.documentDeleted.kind : undefined
}
