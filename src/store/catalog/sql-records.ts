import { ephemeralKinds, type ImageMember, type MemberStatus } from './catalog.ts'
import type { JournalChange } from './journal-change.ts'
import { DocumentStatements, SqlDocumentWriter } from './sql-documents.ts'
import { ImageStatements, SqlImageWriter } from './sql-images.ts'
import { type SqlFlavour, type SqlSession, type SqlStatement, slot, statement } from './sql-session.ts'

const ROWS_PER_PAGE = 200 // short enough that nothing waits for a page

/** Every record as journal lines: images, then members, then documents that are worth a journal; a page at a time. */
export async function* recordPages(session: SqlSession, { builder }: SqlFlavour): AsyncIterable<readonly string[]> {
  const images = statement(
    builder
      .selectFrom('images')
      .select(['seq', 'record'])
      .where('seq', '>', slot<number>('seq'))
      .orderBy('seq')
      .limit(ROWS_PER_PAGE),
  )
  yield* pages<{ seq: number; record: string }>(session, images, { seq: 0 }, ({ record }) => [`{"image":${record}}`])

  const members = statement(
    builder
      .selectFrom('image_members')
      .select(['image_id', 'member_id', 'status', 'created_at', 'updated_at'])
      .where(({ eb, refTuple, tuple }) =>
        eb(refTuple('image_id', 'member_id'), '>', tuple(slot<string>('image_id'), slot<string>('member_id'))),
      )
      .orderBy('image_id')
      .orderBy('member_id')
      .limit(ROWS_PER_PAGE),
  )
  yield* pages<MemberRow>(session, members, { image_id: '', member_id: '' }, (row) => [
    JSON.stringify({ member: memberOf(row) } satisfies JournalChange),
  ])

  const documents = statement(
    builder
      .selectFrom('documents')
      .select(['kind', 'key', 'version', 'body', 'indexes', 'expires_at'])
      .where(({ eb, refTuple, tuple }) => eb(refTuple('kind', 'key'), '>', tuple(slot<string>('kind'), slot<string>('key'))))
      .orderBy('kind')
      .orderBy('key')
      .limit(ROWS_PER_PAGE),
  )
  yield* pages<DocumentRow>(session, documents, { kind: '', key: '' }, (row) =>
    ephemeralKinds.has(row.kind) ? [] : [documentLine(row)],
  )
}

async function* pages<R extends Readonly<Record<string, string | number | null>>>(
  session: SqlSession,
  page: SqlStatement,
  start: Readonly<Record<string, string | number>>,
  lines: (row: R) => readonly string[],
): AsyncIterable<readonly string[]> {
  let after: Readonly<Record<string, string | number | null>> = start
  for (;;) {
    const rows = await session.rows<R>(page, after)
    yield rows.flatMap(lines)
    after = rows.at(-1) ?? after
    if (rows.length < ROWS_PER_PAGE) return
  }
}

interface MemberRow extends Readonly<Record<string, string | number>> {
  readonly image_id: string
  readonly member_id: string
  readonly status: MemberStatus
  readonly created_at: number
  readonly updated_at: number
}
const memberOf = (row: MemberRow): ImageMember => ({
  imageId: row.image_id,
  memberId: row.member_id,
  status: row.status,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})

interface DocumentRow extends Readonly<Record<string, string | number | null>> {
  readonly kind: string
  readonly key: string
  readonly version: number
  readonly body: string
  readonly indexes: string
  readonly expires_at: number | null
}
/** The body is JSON already and goes in as it is. */
function documentLine({ kind, key, version, body, indexes, expires_at }: DocumentRow): string {
  const rest = JSON.stringify({ kind, key, version, ...JSON.parse(indexes), expiresAt: expires_at })
  return `{"document":${rest.slice(0, -1)},"body":${body}}}`
}

/** Puts journalled changes into a database, in order, whatever stands there. */
export class RecordRestorer {
  readonly #images: SqlImageWriter
  readonly #documents: SqlDocumentWriter

  constructor(session: SqlSession, flavour: SqlFlavour) {
    this.#images = new SqlImageWriter(session, new ImageStatements(flavour), () => {})
    this.#documents = new SqlDocumentWriter(session, new DocumentStatements(flavour), () => {})
  }

  async apply(change: JournalChange): Promise<void> {
    if ('image' in change) await this.#images.restore(change.image)
    else if ('member' in change) await this.#images.restoreMember(change.member)
    else if ('memberDeleted' in change) {
      await this.#images.deleteMember(change.memberDeleted.imageId, change.memberDeleted.memberId)
    } else if ('document' in change) await this.#documents.restore(change.document)
    else await this.#documents.delete(change.documentDeleted.kind, change.documentDeleted.key)
  }
}
