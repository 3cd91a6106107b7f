import { sql } from 'kysely'
import { ServiceError } from '../../base/errors.ts'
import type {
  ImageMember,
  ImageQuery,
  ImageReader,
  ImageRecord,
  ImageWriter,
  MemberStatus,
  NamedManifest,
  ProjectUsage,
} from './catalog.ts'
import { type ImageListPlan, PlanCache, planImageList } from './image-query.ts'
import { termsOf } from './image-terms.ts'
import { addUsage, noUsage, usageOf } from './image-usage.ts'
import type { RecordChange } from './journal-change.ts'
import { decodeRecord, type RecordCache } from './record-cache.ts'
import { imageRow, shelfOf } from './sql-schema.ts'
import { type SqlFlavour, type SqlSession, type SqlStatement, type SqlValues, slot, statement } from './sql-session.ts'

const MANIFESTS_PER_PAGE = 1_000 // rows read at a time by a walk over all images

type ImageRow = ReturnType<typeof imageRow>

/** The statements on images, compiled once for a database. */
export class ImageStatements {
  readonly plans: PlanCache
  readonly get: SqlStatement
  readonly insert: SqlStatement
  readonly member: SqlStatement
  readonly members: SqlStatement
  readonly putMember: SqlStatement
  readonly deleteMember: SqlStatement
  readonly moveMembers: SqlStatement
  readonly usage: SqlStatement
  readonly addUsage: SqlStatement
  readonly addTerm: SqlStatement
  readonly dropTerm: SqlStatement
  readonly manifests: SqlStatement
  readonly #flavour: SqlFlavour
  readonly #updates = new Map<string, SqlStatement>()

  constructor(flavour: SqlFlavour) {
    const { builder } = flavour
    this.#flavour = flavour
    this.plans = new PlanCache(flavour)
    this.get = statement(builder.selectFrom('images').select(['seq', 'version', 'record']).where('id', '=', slot<string>('id')))
    this.insert = statement(
      builder
        .insertInto('images')
        .values(slotsFor(columnsOfRow))
        .onConflict((conflict) => conflict.column('id').doNothing())
        .returning('seq'),
    )
    const members = builder
      .selectFrom('image_members')
      .select(['image_id', 'member_id', 'status', 'created_at', 'updated_at'])
      .where('image_id', '=', slot<string>('imageId'))
    this.member = statement(members.where('member_id', '=', slot<string>('memberId')))
    this.members = statement(members.orderBy('created_at').orderBy('member_id'))
    this.putMember = statement(
      builder
        .insertInto('image_members')
        .values({
          image_id: slot('imageId'),
          member_id: slot('memberId'),
          status: slot('status'),
          created_at: slot('createdAt'),
          updated_at: slot('updatedAt'),
          image_created_at: slot('imageCreatedAt'),
        })
        .onConflict((conflict) =>
          conflict.columns(['image_id', 'member_id']).doUpdateSet((row) => ({
            status: row.ref('excluded.status'),
            created_at: row.ref('excluded.created_at'),
            updated_at: row.ref('excluded.updated_at'),
          })),
        ),
    )
    this.deleteMember = statement(
      builder
        .deleteFrom('image_members')
        .where('image_id', '=', slot<string>('imageId'))
        .where('member_id', '=', slot<string>('memberId')),
    )
    this.moveMembers = statement(
      builder
        .updateTable('image_members')
        .set({ image_created_at: slot<number>('imageCreatedAt') })
        .where('image_id', '=', slot<string>('imageId')),
    )
    this.usage = statement(
      builder
        .selectFrom('project_usage')
        .select(['image_count', 'total_bytes', 'staged_bytes', 'uploading_count'])
        .where('owner', '=', slot<string>('owner')),
    )
    this.addUsage = statement(
      builder
        .insertInto('project_usage')
        .values({
          owner: slot('owner'),
          image_count: slot('imageCount'),
          total_bytes: slot('totalBytes'),
          staged_bytes: slot('stagedBytes'),
          uploading_count: slot('uploadingCount'),
        })
        .onConflict((conflict) =>
          conflict.column('owner').doUpdateSet({
            image_count: sql<number>`project_usage.image_count + excluded.image_count`,
            total_bytes: sql<number>`project_usage.total_bytes + excluded.total_bytes`,
            staged_bytes: sql<number>`project_usage.staged_bytes + excluded.staged_bytes`,
            uploading_count: sql<number>`project_usage.uploading_count + excluded.uploading_count`,
          }),
        ),
    )
    this.addTerm = statement(
      builder
        .insertInto('image_terms')
        .values({
          term: slot('term'),
          shelf: slot('shelf'),
          created_at: slot('createdAt'),
          id: slot('id'),
          seq: slot('seq'),
        })
        .onConflict((conflict) => conflict.doNothing()),
    )
    this.dropTerm = statement(
      builder
        .deleteFrom('image_terms')
        .where('term', '=', slot<Uint8Array>('term'))
        .where('shelf', '=', slot<number>('shelf'))
        .where('created_at', '=', slot<number>('createdAt'))
        .where('id', '=', slot<string>('id')),
    )
    this.manifests = statement(
      builder
        .selectFrom('images')
        .select(['seq', 'id', 'owner', 'manifest', 'staged_manifest'])
        .where('seq', '>', slot<number>('after'))
        .where((row) => row.or([row('manifest', 'is not', null), row('staged_manifest', 'is not', null)]))
        .orderBy('seq')
        .limit(MANIFESTS_PER_PAGE),
    )
  }

  /** Sets just these columns, so that only their indexes are written. */
  update(columns: readonly (keyof ImageRow)[]): SqlStatement {
    const shape = columns.join()
    const known = this.#updates.get(shape)
    if (known) return known
    const made = statement(
      this.#flavour.builder.updateTable('images').set(slotsFor(columns)).where('seq', '=', slot<number>('seq')),
    )
    this.#updates.set(shape, made)
    return made
  }
}

const columnsOfRow: readonly (keyof ImageRow)[] = [
  'id',
  'version',
  'shelf',
  'audience',
  'name',
  'status',
  'visibility',
  'owner',
  'protected',
  'hidden',
  'disk_format',
  'container_format',
  'min_disk',
  'min_ram',
  'size',
  'virtual_size',
  'checksum',
  'hash_algo',
  'hash_value',
  'created_at',
  'updated_at',
  'manifest',
  'staged_manifest',
  'record',
]

const slotsFor = (columns: readonly (keyof ImageRow)[]): ImageRow =>
  Object.fromEntries(columns.map((column) => [column, slot(column)])) as unknown as ImageRow

interface MemberRow {
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

export interface RecordRow {
  readonly seq: number
  readonly version: number
  readonly record: string
}

export class SqlImageReader implements ImageReader {
  protected readonly session: SqlSession
  protected readonly statements: ImageStatements
  protected readonly decode: (row: RecordRow) => ImageRecord

  /** @param cache only for a session that sees nothing but committed rows */
  constructor(session: SqlSession, statements: ImageStatements, cache?: RecordCache) {
    this.session = session
    this.statements = statements
    this.decode = cache ? ({ seq, version, record }) => cache.decode(seq, version, record) : ({ record }) => decodeRecord(record)
  }

  async get(id: string): Promise<ImageRecord | undefined> {
    const stored = await this.stored(id)
    return stored?.image
  }

  async list(query: ImageQuery): Promise<readonly ImageRecord[]> {
    return (await this.listed(query)).map(this.decode)
  }

  protected async listed(query: ImageQuery): Promise<readonly RecordRow[]> {
    const marker = query.marker === undefined ? undefined : await this.#marker(query, query.marker)
    const plan = await planImageList(query, marker, (count) => this.#count(count))
    if (!plan) return []
    return this.session.rows<RecordRow>(this.statements.plans.statement(plan), {})
  }

  async member(imageId: string, memberId: string): Promise<ImageMember | undefined> {
    const [row] = await this.session.rows<MemberRow>(this.statements.member, { imageId, memberId })
    return row && memberOf(row)
  }

  async members(imageId: string): Promise<readonly ImageMember[]> {
    return (await this.session.rows<MemberRow>(this.statements.members, { imageId })).map(memberOf)
  }

  async usage(owner: string): Promise<ProjectUsage> {
    const [row] = await this.session.rows<{
      image_count: number
      total_bytes: number
      staged_bytes: number
      uploading_count: number
    }>(this.statements.usage, { owner })
    if (!row) return noUsage
    return {
      imageCount: row.image_count,
      totalBytes: row.total_bytes,
      stagedBytes: row.staged_bytes,
      uploadingCount: row.uploading_count,
    }
  }

  /** Reads a page at a time: an image that changes during the walk shows its old manifests or its new ones. */
  async *manifests(): AsyncIterable<NamedManifest> {
    let after = 0
    for (;;) {
      const rows = await this.session.rows<
        Pick<ImageRow, 'id' | 'owner' | 'manifest' | 'staged_manifest'> & { readonly seq: number }
      >(this.statements.manifests, { after })
      for (const { seq, id, owner, manifest, staged_manifest } of rows) {
        if (manifest !== null) yield { imageId: id, owner, manifest }
        if (staged_manifest !== null) yield { imageId: id, owner, manifest: staged_manifest }
        after = seq
      }
      if (rows.length < MANIFESTS_PER_PAGE) return
    }
  }

  protected async stored(id: string): Promise<{ readonly seq: number; readonly image: ImageRecord } | undefined> {
    const row = await this.row(id)
    return row && { seq: row.seq, image: this.decode(row) }
  }

  protected async row(id: string): Promise<RecordRow | undefined> {
    const [row] = await this.session.rows<RecordRow>(this.statements.get, { id })
    return row
  }

  async #count(plan: ImageListPlan): Promise<number> {
    const [row] = await this.session.rows<{ n: number }>(this.statements.plans.statement(plan), {})
    return row?.n ?? 0
  }

  async #marker(query: ImageQuery, id: string): Promise<ImageRecord> {
    const image = await this.get(id)
    if (image && (await this.#maySee(query, image))) return image
    throw new ServiceError(
      'invalid-request',
      'the marker is not an image that this list could go on after: use the last id of the previous page',
      {
        marker: id.slice(0, 80),
      },
    )
  }

  async #maySee({ viewer, deleted }: ImageQuery, image: ImageRecord): Promise<boolean> {
    if (image.status === 'deleted' && !deleted) return false
    if ('all' in viewer || image.visibility === 'public' || image.visibility === 'community') return true
    if (viewer.projectId === null) return false
    if (image.owner === viewer.projectId) return true
    return image.visibility === 'shared' && (await this.member(image.id, viewer.projectId)) !== undefined
  }
}

export class SqlImageWriter extends SqlImageReader implements ImageWriter {
  readonly #changed: RecordChange

  constructor(session: SqlSession, statements: ImageStatements, changed: RecordChange) {
    super(session, statements)
    this.#changed = changed
  }

  async create(image: ImageRecord): Promise<void> {
    const record = orderly(image)
    const [row] = await this.session.rows<{ seq: number }>(this.statements.insert, imageRow(record))
    if (!row)
      throw new ServiceError('conflict', 'an image with this id exists or existed: choose another id', { imageId: image.id })
    await this.#addTerms(record, row.seq, termsOf(record))
    await this.#count(undefined, record)
    this.#changed({ image: record })
  }

  async update(id: string, expect: number, changes: Partial<Omit<ImageRecord, 'id' | 'version'>>): Promise<ImageRecord> {
    const stored = await this.stored(id)
    if (!stored) throw new ServiceError('not-found', 'no image has this id', { imageId: id })
    const { image: before } = stored
    if (before.version !== expect) {
      throw new ServiceError('conflict', 'the image was changed by someone else meanwhile: read it again and repeat the change', {
        imageId: id,
        expectedVersion: expect,
        version: before.version,
      })
    }
    const after = orderly({ ...before, updatedAt: Date.now(), ...changes, id, version: before.version + 1 })
    await this.#replace(stored.seq, before, after)
    return after
  }

  /** Puts the record as it is, whatever stands there: for the journal. */
  async restore(image: ImageRecord): Promise<void> {
    const stored = await this.stored(image.id)
    if (stored) return this.#replace(stored.seq, stored.image, image)
    await this.create(image)
    await this.session.run(this.statements.moveMembers, { imageId: image.id, imageCreatedAt: image.createdAt })
  }

  /** Puts the member even where its image is yet to come: for the journal, whose snapshots are not of one moment. */
  async restoreMember(member: ImageMember): Promise<void> {
    await this.#putMember(member, (await this.get(member.imageId))?.createdAt ?? 0)
  }

  async putMember(member: ImageMember): Promise<void> {
    const image = await this.get(member.imageId)
    if (!image) throw new ServiceError('not-found', 'no image has this id', { imageId: member.imageId })
    await this.#putMember(member, image.createdAt)
  }

  async #putMember({ imageId, memberId, status, createdAt, updatedAt }: ImageMember, imageCreatedAt: number): Promise<void> {
    const member = { imageId, memberId, status, createdAt, updatedAt }
    await this.session.run(this.statements.putMember, { ...member, imageCreatedAt })
    this.#changed({ member })
  }

  async deleteMember(imageId: string, memberId: string): Promise<boolean> {
    if ((await this.session.run(this.statements.deleteMember, { imageId, memberId })) === 0) return false
    this.#changed({ memberDeleted: { imageId, memberId } })
    return true
  }

  async #replace(seq: number, before: ImageRecord, after: ImageRecord): Promise<void> {
    const [old, row] = [imageRow(before), imageRow(after)]
    const columns = columnsOfRow.filter((column) => old[column] !== row[column])
    if (columns.length > 0) await this.session.run(this.statements.update(columns), { ...row, seq } as SqlValues)
    await this.#moveTerms(seq, before, after)
    if (before.createdAt !== after.createdAt) {
      await this.session.run(this.statements.moveMembers, { imageId: after.id, imageCreatedAt: after.createdAt })
    }
    await this.#count(before, after)
    this.#changed({ image: after })
  }

  async #moveTerms(seq: number, before: ImageRecord, after: ImageRecord): Promise<void> {
    const stays = shelfOf(before) === shelfOf(after) && before.createdAt === after.createdAt
    if (stays && sameTerms(before, after)) return
    const [old, now] = [byName(termsOf(before)), byName(termsOf(after))]
    const { id, createdAt } = before
    for (const [name, term] of old) {
      if (stays && now.has(name)) continue
      await this.session.run(this.statements.dropTerm, { term, shelf: shelfOf(before), createdAt, id })
    }
    const added = [...now].filter(([name]) => !stays || !old.has(name)).map(([, term]) => term)
    await this.#addTerms(after, seq, added)
  }

  async #addTerms({ id, createdAt, status, hidden }: ImageRecord, seq: number, terms: readonly Uint8Array[]): Promise<void> {
    const shelf = shelfOf({ status, hidden })
    for (const term of terms) await this.session.run(this.statements.addTerm, { term, shelf, createdAt, id, seq })
  }

  async #count(before: ImageRecord | undefined, after: ImageRecord): Promise<void> {
    if (before && before.owner === after.owner) {
      await this.#addUsage(after.owner, addUsage(usageOf(after), usageOf(before), -1))
      return
    }
    if (before) await this.#addUsage(before.owner, addUsage(noUsage, usageOf(before), -1))
    await this.#addUsage(after.owner, usageOf(after))
  }

  async #addUsage(owner: string | null, change: ProjectUsage): Promise<void> {
    if (owner === null || Object.values(change).every((value) => value === 0)) return
    await this.session.run(this.statements.addUsage, { owner, ...change })
  }
}

/** Tags ascending and distinct, whatever was given. */
const orderly = (image: ImageRecord): ImageRecord => ({ ...image, tags: [...new Set(image.tags)].sort() })

const byName = (terms: readonly Uint8Array[]): Map<string, Uint8Array> =>
  new Map(terms.map((term) => [Buffer.from(term).toString('latin1'), term]))

const sameTerms = (a: ImageRecord, b: ImageRecord): boolean =>
  a.owner === b.owner &&
  a.visibility === b.visibility &&
  JSON.stringify([a.tags, a.properties]) === JSON.stringify([b.tags, b.properties])
