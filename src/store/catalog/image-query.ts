import { type RawBuilder, sql } from 'kysely'
import { ServiceError } from '../../base/errors.ts'
import type { ImageQuery, ImageRecord, MemberStatus, SortKey, TimeCondition } from './catalog.ts'
import { propertyTerm, type TermScope, tagTerm } from './image-terms.ts'
import { shelves, sortColumns, sortValue } from './sql-schema.ts'
import type { SqlFlavour, SqlStatement, SqlValue } from './sql-session.ts'

/**
 * From an `ImageQuery` to one SQL query that reads its answer off indexes.
 *
 * What a viewer sees is the union of a few scopes (own images, public ones, ones shared with them …) and in each scope the
 * images in the wanted order stand in an index. So each scope becomes a branch that takes its first `limit` rows, and the
 * query takes the first `limit` of those: whatever belongs to the first page of the union is on the first page of a scope.
 * A marker cuts a branch into segments, each again a range of the index; nothing is skipped by counting.
 *
 * A branch is driven either by the index of the order, testing the filters on the way, or by the index of its rarest filter,
 * sorting what that finds. Which is better depends on how many images the filter finds, so that is counted, up to a limit.
 *
 * Text is compiled once for each shape of query; values are given in the order in which the pieces stand in the text.
 */
export const MAX_LIST_LIMIT = 10_000 // far above what any API asks for; bounds one answer
export const MAX_FILTER_VALUES = 2_000 // of one field; bounds the text and the placeholders of a query
export const MAX_TERMS = 64 // tags and properties in one query; each is one probe for each image looked at

/** Up to here the images that a filter finds are sorted; beyond, they are met in order before long. */
export const SORTED_ROWS = 1_000

/** A part of a query: its text is made only for a shape not seen before. */
interface Piece {
  readonly shape: string
  readonly values: readonly SqlValue[]
  text(): RawBuilder<unknown>
}

type Scope =
  | { readonly kind: 'all' }
  | { readonly kind: 'owner'; readonly owner: string }
  | { readonly kind: 'audience'; readonly audience: 'public' | 'community' }
  | { readonly kind: 'member'; readonly memberId: string; readonly status: MemberStatus }

/** Where a branch takes its rows from. */
interface Source {
  readonly shape: string
  /** Conditions that make the source a range of its index. */
  readonly where: readonly Piece[]
  /** Whether the rows come in order of creation, then id. */
  readonly chronological: boolean
  /** The column in whose order the rows come, then by creation and id, all in one direction. */
  readonly sortedBy: string
  from(flavour: SqlFlavour): RawBuilder<unknown>
  column(name: string): string
}

interface Branch {
  readonly source: Source
  readonly where: readonly Piece[]
}

export interface ImageListPlan {
  readonly shape: string
  readonly values: readonly SqlValue[]
  build(flavour: SqlFlavour): RawBuilder<unknown>
}

/** Counts the rows that a source finds, up to `SORTED_ROWS`. */
export type CountRows = (plan: ImageListPlan) => Promise<number>

/** @param marker the image after which the list goes on; the caller has checked that the viewer may see it */
export async function planImageList(
  query: ImageQuery,
  marker: ImageRecord | undefined,
  countRows: CountRows,
): Promise<ImageListPlan | undefined> {
  assertBounds(query)
  const keys = sortKeysOf(query)
  const filters = filtersOf(query)
  const branches: Branch[] = []
  for (const { scope, also } of scopesOf(query)) {
    const source = await chooseSource(query, scope, keys, countRows)
    branches.push({ source, where: [...also, ...filters, ...termProbes(query, source)] })
  }
  return branches.length === 0 ? undefined : listPlan(branches, keys, marker, query.limit)
}

function assertBounds(query: ImageQuery): void {
  const refuse = (what: string, max: number) => {
    throw new ServiceError('invalid-request', `the list asks for too many ${what}: the most is ${max}`, { max })
  }
  if (!Number.isSafeInteger(query.limit) || query.limit < 1 || query.limit > MAX_LIST_LIMIT) {
    throw new ServiceError('invalid-request', `the limit of a list is a whole number from 1 to ${MAX_LIST_LIMIT}`, {
      limit: String(query.limit),
    })
  }
  const { ids, names, statuses, diskFormats, containerFormats, tags = [], properties = {}, times = [], sort = [] } = query
  for (const values of [ids, names, statuses, diskFormats, containerFormats]) {
    if (values && values.length > MAX_FILTER_VALUES) refuse('values of one field', MAX_FILTER_VALUES)
  }
  if (tags.length + Object.keys(properties).length > MAX_TERMS) refuse('tags and properties', MAX_TERMS)
  if (times.length > MAX_TERMS) refuse('time conditions', MAX_TERMS)
  if (sort.length > MAX_TERMS) refuse('sort keys', MAX_TERMS)
}

// ---------------------------------------------------------------- order

interface Key extends SortKey {
  readonly column: string
  readonly nullable: boolean
}

function sortKeysOf(query: ImageQuery): readonly Key[] {
  const asked: readonly SortKey[] = query.sort?.length ? query.sort : [{ field: 'createdAt', direction: 'desc' }]
  const keys: Key[] = []
  for (const key of [...asked, { field: 'id', direction: asked.at(-1)?.direction ?? 'desc' } as const]) {
    if (keys.some(({ field }) => field === key.field || field === 'id')) continue // decided by an earlier key
    keys.push({ ...key, ...sortColumns[key.field] })
  }
  // within the shelves of living images `hidden` is constant, and a constant in front would hide the index
  return shelfOfQuery(query) === shelves.gone ? keys : keys.filter(({ field }) => field !== 'hidden')
}

const isChronological = ([first, second]: readonly Key[]): boolean =>
  first?.field === 'createdAt' && second?.field === 'id' && first.direction === second.direction

/** Whether rows that come by `sortedBy`, creation and id come in this order. */
function comesSorted({ sortedBy, chronological }: Source, keys: readonly Key[]): boolean {
  if (keys.some(({ direction }) => direction !== keys[0]?.direction)) return false
  if (chronological && isChronological(keys)) return true
  const columns = [...new Set([sortedBy, 'created_at', 'id'])]
  if (sortedBy === 'id') columns.length = 1
  return keys.every(({ column }, i) => column === columns[i]) && keys.length === columns.length
}

/** The ranges of the order that lie after the marker; together they are all of it, and no two overlap. */
function segmentsAfter(keys: readonly Key[], marker: ImageRecord | undefined, column: (name: string) => string): Piece[][] {
  if (!marker) return [[]]
  const segments: Piece[][] = []
  const values = keys.map((key) => sortValue(marker, key.field))
  for (let at = keys.length - 1; at >= 0; at -= 1) {
    const key = keys[at]!
    const value = values[at] ?? null
    const before = keys.slice(0, at).map((earlier, i) => same(column(earlier.column), values[i] ?? null))
    const name = column(key.column)
    if (value === null) {
      if (key.direction === 'asc') segments.push([...before, isNotNull(name)])
      continue
    }
    if (key.direction === 'desc' && key.nullable) segments.push([...before, same(name, null)])
    if (at > 0 && isOneRange(keys, values, at - 1)) continue // the range that starts one key earlier holds this one
    const end = isOneRange(keys, values, at) ? keys.length : at + 1
    const columns = keys.slice(at, end).map((k) => column(k.column))
    segments.push([...before, beyond(columns, values.slice(at, end), key.direction)])
  }
  return segments
}

/** Whether all keys from `at` on can be compared as one row value. */
function isOneRange(keys: readonly Key[], values: readonly SqlValue[], at: number): boolean {
  const { direction } = keys[at]!
  return keys.slice(at).every((key, i) => key.direction === direction && (i === 0 || !key.nullable) && values[at + i] !== null)
}

// ---------------------------------------------------------------- conditions

const same = (column: string, value: SqlValue): Piece =>
  value === null
    ? { shape: `${column}∅`, values: [], text: () => sql`${sql.ref(column)} is null` }
    : { shape: `${column}=`, values: [value], text: () => sql`${sql.ref(column)} = ${value}` }

const isNotNull = (column: string): Piece => ({
  shape: `${column}!∅`,
  values: [],
  text: () => sql`${sql.ref(column)} is not null`,
})

const compare = (column: string, op: '<' | '<=' | '>' | '>=', value: SqlValue): Piece => ({
  shape: `${column}${op}`,
  values: [value],
  text: () => sql`${sql.ref(column)} ${sql.raw(op)} ${value}`,
})

function beyond(columns: readonly string[], values: readonly SqlValue[], direction: 'asc' | 'desc'): Piece {
  const op = direction === 'asc' ? '>' : '<'
  const [column] = columns
  if (columns.length === 1 && column !== undefined) return compare(column, op, values[0] ?? null)
  return {
    shape: `(${columns.join(',')})${op}`,
    values,
    text: () => sql`(${sql.join(columns.map((name) => sql.ref(name)))}) ${sql.raw(op)} (${sql.join(values)})`,
  }
}

/** Padded to a power of two by repeating the last, so that there are few shapes. */
function anyOf(column: string, values: readonly SqlValue[]): Piece {
  const [first, ...rest] = values
  if (first === undefined) return never
  if (rest.length === 0) return same(column, first)
  const width = 2 ** Math.ceil(Math.log2(values.length))
  const padded = [...values, ...Array<SqlValue>(width - values.length).fill(values.at(-1) ?? null)]
  return { shape: `${column}:${width}`, values: padded, text: () => sql`${sql.ref(column)} in (${sql.join(padded)})` }
}

const differs = (column: string, value: string): Piece => ({
  shape: `${column}≠`,
  values: [value],
  text: () => sql`${sql.ref(column)} is distinct from ${value}`,
})

const never: Piece = { shape: 'never', values: [], text: () => sql`1 = 0` }

const either = (...pieces: readonly Piece[]): Piece => ({
  shape: `(${pieces.map(({ shape }) => shape).join('|')})`,
  values: pieces.flatMap(({ values }) => values),
  text: () =>
    sql`(${sql.join(
      pieces.map((piece) => piece.text()),
      sql` or `,
    )})`,
})

const not = (piece: Piece): Piece => ({ shape: `!${piece.shape}`, values: piece.values, text: () => sql`not (${piece.text()})` })

const SECOND_MS = 1000

function timeCondition({ field, op, value }: TimeCondition): Piece[] {
  const column = `i.${sortColumns[field].column}`
  const second = Math.floor(value / SECOND_MS) * SECOND_MS
  const next = second + SECOND_MS
  if (op === 'gt') return [compare(column, '>=', next)]
  if (op === 'gte') return [compare(column, '>=', second)]
  if (op === 'lt') return [compare(column, '<', second)]
  if (op === 'lte') return [compare(column, '<', next)]
  if (op === 'eq') return [compare(column, '>=', second), compare(column, '<', next)]
  return [either(compare(column, '<', second), compare(column, '>=', next))]
}

/** Conditions on the image's own columns, the same in every branch. */
function filtersOf(query: ImageQuery): Piece[] {
  const filters: Piece[] = []
  const add = (wanted: boolean, make: () => Piece) => {
    if (wanted) filters.push(make())
  }
  const { ids, names, statuses, diskFormats, containerFormats, checksum, hashValue, sizeMin, sizeMax } = query
  if (query.deleted) filters.push(same('i.status', 'deleted')) // killed images stand on the same shelf
  add(query.deleted === true && query.hidden !== undefined, () => same('i.hidden', Number(query.hidden)))
  add(query.protected !== undefined, () => same('i.protected', Number(query.protected)))
  add(query.owner !== undefined, () => same('i.owner', query.owner ?? null))
  add(ids !== undefined, () => anyOf('i.id', ids ?? []))
  add(names !== undefined, () => anyOf('i.name', names ?? []))
  add(statuses !== undefined, () => anyOf('i.status', statuses ?? []))
  add(diskFormats !== undefined, () => anyOf('i.disk_format', diskFormats ?? []))
  add(containerFormats !== undefined, () => anyOf('i.container_format', containerFormats ?? []))
  add(checksum !== undefined, () => same('i.checksum', checksum ?? null))
  add(hashValue !== undefined, () => same('i.hash_value', hashValue ?? null))
  add(query.minDisk !== undefined, () => same('i.min_disk', query.minDisk ?? null))
  add(query.minRam !== undefined, () => same('i.min_ram', query.minRam ?? null))
  add(sizeMin !== undefined, () => compare('i.size', '>=', sizeMin ?? null))
  add(sizeMax !== undefined, () => compare('i.size', '<=', sizeMax ?? null))
  filters.push(...(query.times ?? []).flatMap(timeCondition))
  return filters
}

// ---------------------------------------------------------------- who sees what

const shelfOfQuery = (query: ImageQuery): number =>
  query.deleted ? shelves.gone : query.hidden ? shelves.hidden : shelves.listed

const MEMBER_STATUSES: readonly MemberStatus[] = ['pending', 'accepted', 'rejected']

interface ScopedBranch {
  readonly scope: Scope
  readonly also: readonly Piece[]
}

/** The scopes whose union is what the viewer's list may show; `also` holds in that scope only. */
function scopesOf(query: ImageQuery): ScopedBranch[] {
  const { viewer, visibility, owner } = query
  const onlyVisibility = visibility === undefined || visibility === 'all' ? [] : [same('i.visibility', visibility)]
  if ('all' in viewer) return [{ scope: adminScope(query), also: [...onlyVisibility, ...foreignCommunity(query)] }]
  const { projectId } = viewer
  if (isPinpoint(query)) return [{ scope: { kind: 'all' }, also: [...onlyVisibility, visibleTo(projectId, query)] }]

  const branches: ScopedBranch[] = []
  const foreign = projectId === null ? [] : [differs('i.owner', projectId)] // so that no two branches hold the same image
  const audience = (name: 'public' | 'community') => branches.push({ scope: { kind: 'audience', audience: name }, also: foreign })
  if (projectId !== null && owner === projectId) return [{ scope: { kind: 'owner', owner }, also: onlyVisibility }]
  if (projectId !== null && owner === undefined) {
    branches.push({ scope: { kind: 'owner', owner: projectId }, also: onlyVisibility })
  }
  if (visibility === undefined || visibility === 'all' || visibility === 'public') audience('public')
  if (visibility === 'all' || visibility === 'community') audience('community')
  if (projectId !== null && (visibility === undefined || visibility === 'all' || visibility === 'shared')) {
    for (const status of memberStatuses(query)) {
      branches.push({
        scope: { kind: 'member', memberId: projectId, status },
        also: [same('i.visibility', 'shared'), ...foreign],
      })
    }
  }
  return branches
}

function adminScope({ owner, visibility }: ImageQuery): Scope {
  if (owner !== undefined) return { kind: 'owner', owner }
  if (visibility === 'public' || visibility === 'community') return { kind: 'audience', audience: visibility }
  return { kind: 'all' }
}

/** An administrator who works in a project is not shown the community images of other projects unless asked for. */
function foreignCommunity({ viewer, visibility }: ImageQuery): Piece[] {
  if (!('all' in viewer) || viewer.projectId === undefined || visibility !== undefined) return []
  const listed = not(same('i.visibility', 'community'))
  return [viewer.projectId === null ? listed : either(listed, same('i.owner', viewer.projectId))]
}

/** Filters that find so few images, whoever may see them, that it is cheaper to ask of each whether the viewer does. */
const isPinpoint = ({ ids, checksum, hashValue }: ImageQuery): boolean =>
  ids !== undefined || checksum !== undefined || hashValue !== undefined

const memberStatuses = ({ memberStatus = 'accepted' }: ImageQuery): readonly MemberStatus[] =>
  memberStatus === 'all' ? MEMBER_STATUSES : [memberStatus]

function visibleTo(projectId: string | null, query: ImageQuery): Piece {
  const { visibility } = query
  const audience = visibility === undefined ? same('i.audience', 'public') : isNotNull('i.audience') // a named visibility is tested apart
  if (projectId === null) return audience
  const statuses = memberStatuses(query)
  const values: SqlValue[] = ['shared', projectId, ...statuses]
  const member: Piece = {
    shape: `member${statuses.length}`,
    values,
    text: () => sql`(i.visibility = ${'shared'} and exists (select 1 from image_members as m
      where m.image_id = i.id and m.member_id = ${projectId} and m.status in (${sql.join(statuses)})))`,
  }
  return either(same('i.owner', projectId), audience, member)
}

// ---------------------------------------------------------------- where rows come from

/** The orders that an index of each scope keeps; `migrations` of each adapter make them. */
const sortedByScope: Readonly<Record<'all' | 'owner' | 'audience', ReadonlySet<string>>> = {
  all: new Set(Object.keys(sortColumns).filter((field) => field !== 'hidden' && field !== 'id')),
  owner: new Set(['createdAt', 'updatedAt', 'name', 'size']),
  audience: new Set(['createdAt', 'updatedAt', 'name', 'size']),
}

function scopeConditions(scope: Exclude<Scope, { kind: 'member' }>, shelf: number): Piece[] {
  const onShelf = same('i.shelf', shelf)
  if (scope.kind === 'owner') return [onShelf, same('i.owner', scope.owner)]
  if (scope.kind === 'audience') return [onShelf, same('i.audience', scope.audience)]
  return [onShelf]
}

/** Images by one of the indexes `images_<scope>_<column>`: shelf and scope, then the column, then creation, then id. */
function imageSource(scope: Exclude<Scope, { kind: 'member' }>, column: string, shelf: number, chronological: boolean): Source {
  const index = imageIndex(scope.kind, column)
  return {
    shape: index,
    where: scopeConditions(scope, shelf),
    chronological,
    sortedBy: column,
    from: (flavour) => sql`images as i ${sql.raw(flavour.useIndex(index))}`,
    column: (name) => `i.${name}`,
  }
}

function imageIndex(scope: 'all' | 'owner' | 'audience', column: string): string {
  if (column === 'id') return 'images_by_id'
  return scope === 'all' && column === 'owner' ? 'images_owner_created_at' : `images_${scope}_${column}`
}

function memberSource({ memberId, status }: Extract<Scope, { kind: 'member' }>, shelf: number): Source {
  const own: Readonly<Record<string, string>> = { created_at: 'm.image_created_at', id: 'm.image_id' }
  return {
    shape: 'members',
    where: [same('m.member_id', memberId), same('m.status', status), same('i.shelf', shelf)],
    chronological: true,
    sortedBy: 'created_at',
    from: (flavour) =>
      sql`image_members as m ${sql.raw(flavour.useIndex('image_members_by_member'))} cross join images as i on i.id = m.image_id`,
    column: (name) => own[name] ?? `i.${name}`,
  }
}

function termSource(term: Uint8Array, shelf: number): Source {
  const own: Readonly<Record<string, string>> = { created_at: 't.created_at', id: 't.id' }
  return {
    shape: 'terms',
    where: [same('t.term', term), same('t.shelf', shelf)],
    chronological: true,
    sortedBy: 'created_at',
    from: () => sql`image_terms as t cross join images as i on i.seq = t.seq`,
    column: (name) => own[name] ?? `i.${name}`,
  }
}

async function chooseSource(query: ImageQuery, scope: Scope, keys: readonly Key[], countRows: CountRows): Promise<Source> {
  const shelf = shelfOfQuery(query)
  if (scope.kind === 'member') return memberSource(scope, shelf)
  if (query.ids) return imageSource(scope, 'id', shelf, false)

  const byFilter = filterSources(query, scope, shelf)
  const byOrder = orderSource(scope, keys, shelf)
  const chronological = isChronological(keys)
  const [only] = byFilter
  if (!only || (byFilter.length === 1 && chronological && only.chronological)) return only ?? byOrder

  let [best, fewest] = [byOrder, SORTED_ROWS]
  for (const source of byFilter) {
    const found = await countRows(countPlan(source))
    if (found < fewest) [best, fewest] = [source, found]
  }
  if (best !== byOrder || !chronological) return best
  return byFilter.find((source) => source.chronological) ?? byOrder
}

function orderSource(scope: Exclude<Scope, { kind: 'member' }>, [first]: readonly Key[], shelf: number): Source {
  if (first?.field === 'id' && scope.kind === 'all') return imageSource(scope, 'id', shelf, false)
  const indexed = first !== undefined && sortedByScope[scope.kind].has(first.field)
  return imageSource(scope, indexed ? first.column : 'created_at', shelf, false)
}

/** The indexes that the filters allow, each narrowed to what it finds. */
function filterSources(query: ImageQuery, scope: Exclude<Scope, { kind: 'member' }>, shelf: number): Source[] {
  const sources = termsOfQuery(query, scope).map((term) => termSource(term, shelf))
  const add = (column: string, piece: Piece, chronological: boolean) => {
    const source = imageSource(scope, column, shelf, chronological)
    sources.push({ ...source, where: [...source.where, piece] })
  }
  const oneOf = (column: string, values: readonly SqlValue[] | undefined) => {
    if (values) add(column, anyOf(`i.${column}`, values), values.length === 1)
  }
  oneOf('name', query.names)
  if (query.sizeMin !== undefined) add('size', compare('i.size', '>=', query.sizeMin), false)
  if (query.sizeMax !== undefined) add('size', compare('i.size', '<=', query.sizeMax), false)
  for (const { field, op, value } of query.times ?? []) {
    if (op === 'neq') continue
    for (const piece of timeCondition({ field, op, value })) add(sortColumns[field].column, piece, false)
  }
  if (scope.kind !== 'all') return sources
  oneOf('status', query.statuses)
  oneOf('disk_format', query.diskFormats)
  oneOf('container_format', query.containerFormats)
  oneOf('checksum', query.checksum === undefined ? undefined : [query.checksum])
  oneOf('hash_value', query.hashValue === undefined ? undefined : [query.hashValue])
  oneOf('min_disk', query.minDisk === undefined ? undefined : [query.minDisk])
  oneOf('min_ram', query.minRam === undefined ? undefined : [query.minRam])
  oneOf('protected', query.protected === undefined ? undefined : [Number(query.protected)])
  oneOf('visibility', query.visibility === undefined || query.visibility === 'all' ? undefined : [query.visibility])
  return sources
}

function termsOfQuery({ tags = [], properties = {} }: ImageQuery, scope: Exclude<Scope, { kind: 'member' }>): Uint8Array[] {
  const name = termScope(scope)
  return [
    ...tags.map((tag) => tagTerm(name, tag)),
    ...Object.entries(properties).map(([key, value]) => propertyTerm(name, key, value)),
  ]
}

function termScope(scope: Exclude<Scope, { kind: 'member' }>): TermScope {
  if (scope.kind === 'owner') return `owner:${scope.owner}`
  return scope.kind === 'audience' ? `audience:${scope.audience}` : 'all'
}

/** Every tag and property of the query, asked of one image: an exact key of the posting lists that hold everybody's images. */
function termProbes(query: ImageQuery, source: Source): Piece[] {
  const terms = termsOfQuery(query, { kind: 'all' })
  if (terms.length === 1 && source.shape === 'terms') return [] // the source is that term
  return terms.map((term) => ({
    shape: 'has',
    values: [term],
    text: () => sql`exists (select 1 from image_terms as h
      where h.term = ${term} and h.shelf = i.shelf and h.created_at = i.created_at and h.id = i.id)`,
  }))
}

// ---------------------------------------------------------------- text

const allOf = (pieces: readonly Piece[]): RawBuilder<unknown> =>
  sql.join(
    pieces.map((piece) => piece.text()),
    sql` and `,
  )

const valuesOf = (pieces: readonly Piece[]): SqlValue[] => pieces.flatMap(({ values }) => values)
const shapeOf = (pieces: readonly Piece[]): string => pieces.map(({ shape }) => shape).join(' ')

function countPlan(source: Source): ImageListPlan {
  return {
    shape: `count ${source.shape} ${shapeOf(source.where)}`,
    values: [...valuesOf(source.where), SORTED_ROWS],
    build: (flavour) =>
      sql`select count(*) as n from (select 1 from ${countFrom(source, flavour)} where ${allOf(source.where)} limit ${SORTED_ROWS}) as found`,
  }
}

/** A posting list is counted without its images. */
const countFrom = (source: Source, flavour: SqlFlavour): RawBuilder<unknown> =>
  source.shape === 'terms' ? sql`image_terms as t` : source.from(flavour)

function listPlan(
  branches: readonly Branch[],
  keys: readonly Key[],
  marker: ImageRecord | undefined,
  limit: number,
): ImageListPlan {
  const parts = branches.flatMap(({ source, where }) =>
    segmentsAfter(keys, marker, source.column).map((segment) => ({
      source,
      where: [...source.where, ...segment, ...where],
    })),
  )
  const order = keys.map((key) => `${key.field} ${key.direction}`).join()
  const shape = `list ${order} ${parts.map(({ source, where }) => `${source.shape} ${shapeOf(where)}`).join(' ∪ ')}`
  const [only] = parts
  if (parts.length === 1 && only) {
    return {
      shape,
      values: [...valuesOf(only.where), limit],
      build: (
        flavour,
      ) => sql`select i.seq as seq, i.version as version, i.record as record from ${only.source.from(flavour)} where ${allOf(only.where)}
        order by ${orderBy(keys, only.source.column)} limit ${limit}`,
    }
  }
  const arms = parts.map(({ source, where }) => armOf(source, where, keys, limit))
  return {
    shape,
    values: [...arms.flatMap(({ values }) => values), limit],
    build: (flavour) => sql`select i.seq as seq, i.version as version, i.record as record from (${sql.join(
      arms.map((arm) => arm.build(flavour)),
      sql` union all `,
    )} order by ${orderBy(keys, keyName)} limit ${limit}) as page cross join images as i on i.seq = page.seq
      order by ${orderBy(keys, (name) => `page.${keyName(name)}`)}`,
  }
}

/** Rows and sort keys of one part. Parts that come sorted are merged as they come; others give their first `limit` rows. */
function armOf(source: Source, where: readonly Piece[], keys: readonly Key[], limit: number): Omit<ImageListPlan, 'shape'> {
  const rows = (flavour: SqlFlavour) =>
    sql`select i.seq as seq, ${keyColumns(keys, source)} from ${source.from(flavour)} where ${allOf(where)}`
  if (comesSorted(source, keys)) return { values: valuesOf(where), build: rows }
  return {
    values: [...valuesOf(where), limit],
    build: (flavour) => sql`select * from (${rows(flavour)} order by ${orderBy(keys, source.column)} limit ${limit}) as part`,
  }
}

const keyName = (column: string): string => `k_${column}`

const keyColumns = (keys: readonly Key[], source: Source): RawBuilder<unknown> =>
  sql.join(keys.map(({ column }) => sql`${sql.ref(source.column(column))} as ${sql.ref(keyName(column))}`))

const orderBy = (keys: readonly Key[], column: (name: string) => string): RawBuilder<unknown> =>
  sql.join(keys.map((key) => sql`${sql.ref(column(key.column))} ${sql.raw(key.direction)}`))

/** The text of each shape, compiled once; the least recently made go first. */
export class PlanCache {
  static readonly MAX_SHAPES = 1_000 // about 2 KB each; a hostile client can ask for shapes without end
  readonly #flavour: SqlFlavour
  readonly #statements = new Map<string, SqlStatement>()

  constructor(flavour: SqlFlavour) {
    this.#flavour = flavour
  }

  /** @returns the text with the values of this plan */
  statement(plan: ImageListPlan): SqlStatement {
    const text = this.#statements.get(plan.shape)?.text ?? this.#compile(plan)
    return { text, parameters: plan.values }
  }

  #compile(plan: ImageListPlan): string {
    const compiled = plan.build(this.#flavour).compile(this.#flavour.builder)
    if (compiled.parameters.length !== plan.values.length || compiled.parameters.some((value, i) => value !== plan.values[i])) {
      throw new TypeError(`values out of step with the text of: ${compiled.sql}`)
    }
    const oldest = this.#statements.keys().next()
    if (this.#statements.size >= PlanCache.MAX_SHAPES && !oldest.done) this.#statements.delete(oldest.value)
    this.#statements.set(plan.shape, { text: compiled.sql, parameters: [] })
    return compiled.sql
  }
}
