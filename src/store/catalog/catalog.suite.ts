import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { ServiceError } from '../../base/errors.ts'
import type { Catalog, ImageMember, ImageQuery, ImageRecord, MemberStatus, SortKey } from './catalog.ts'

/** A plain active image of project `p1`; `changes` make it another. */
export const anImage = (changes: Partial<ImageRecord> = {}): ImageRecord => ({
  id: randomUUID(),
  name: 'debian',
  status: 'active',
  visibility: 'private',
  owner: 'p1',
  protected: false,
  hidden: false,
  diskFormat: 'raw',
  containerFormat: 'bare',
  minDisk: 0,
  minRam: 0,
  size: 10,
  virtualSize: 20,
  checksum: null,
  hashAlgo: null,
  hashValue: null,
  createdAt: 1_700_000_000_000,
  updatedAt: 1_700_000_000_000,
  deletedAt: null,
  tags: [],
  properties: {},
  manifest: null,
  stagedManifest: null,
  notes: {},
  version: 1,
  ...changes,
})

const aMember = (imageId: string, memberId: string, changes: Partial<ImageMember> = {}): ImageMember => ({
  imageId,
  memberId,
  status: 'pending',
  createdAt: 1,
  updatedAt: 1,
  ...changes,
})

/** What every Catalog must do. `open` gives an empty one; the suite closes it. */
export function catalogSuite(adapter: string, open: () => Promise<Catalog>): void {
  const must = (title: string, check: (catalog: Catalog) => Promise<void>) =>
    test(`${adapter} must ${title}`, async () => {
      const catalog = await open()
      try {
        await check(catalog)
      } finally {
        await catalog.close()
      }
    })

  must('give back an image as it was created, and know no other', async (catalog) => {
    const image = anImage({
      name: 'naïve 名 \u0000 😀',
      tags: ['a', 'b'],
      properties: { os_distro: 'debian', '': 'x'.repeat(70_000) },
      notes: { why: 'because', tries: 3, ok: true },
      size: Number.MAX_SAFE_INTEGER,
    })
    await catalog.write((tx) => tx.images.create(image))
    assert.deepEqual(await catalog.images.get(image.id), image)
    assert.equal(await catalog.images.get(randomUUID()), undefined)
  })

  must('never take an id twice, not even after deletion', async (catalog) => {
    const image = anImage()
    await catalog.write((tx) => tx.images.create(image))
    await assert.rejects(
      catalog.write((tx) => tx.images.create(image)),
      { code: 'conflict' },
    )
    await catalog.write((tx) => tx.images.update(image.id, 1, { status: 'deleted', deletedAt: 2 }))
    await assert.rejects(
      catalog.write((tx) => tx.images.create(image)),
      { code: 'conflict' },
    )
    assert.equal((await catalog.images.get(image.id))?.status, 'deleted')
  })

  must('update named fields, count the version and refuse a stale one', async (catalog) => {
    const image = anImage()
    await catalog.write((tx) => tx.images.create(image))
    const updated = await catalog.write((tx) => tx.images.update(image.id, 1, { name: null, tags: ['b', 'a', 'b'] }))
    assert.equal(updated.version, 2)
    assert.ok(updated.updatedAt > image.updatedAt)
    assert.deepEqual(updated, { ...image, name: null, tags: ['a', 'b'], version: 2, updatedAt: updated.updatedAt })
    assert.deepEqual(await catalog.images.get(image.id), updated)
    await assert.rejects(
      catalog.write((tx) => tx.images.update(image.id, 1, { name: 'late' })),
      { code: 'conflict' },
    )
    await assert.rejects(
      catalog.write((tx) => tx.images.update(randomUUID(), 1, {})),
      { code: 'not-found' },
    )
    const dated = await catalog.write((tx) => tx.images.update(image.id, 2, { updatedAt: 5 }))
    assert.equal(dated.updatedAt, 5)
  })

  must('do all writes of a transaction or none', async (catalog) => {
    const image = anImage()
    const failing = catalog.write(async (tx) => {
      await tx.images.create(image)
      await tx.documents.put('thing', 'a', 1, { unique: { name: 'a' } })
      assert.ok(await tx.images.get(image.id), 'its own writes are seen inside')
      throw new ServiceError('denied', 'no')
    })
    await assert.rejects(failing, { code: 'denied' })
    assert.equal(await catalog.images.get(image.id), undefined)
    assert.equal(await catalog.documents.get('thing', 'a'), undefined)
    assert.deepEqual(await catalog.images.usage('p1'), { imageCount: 0, totalBytes: 0, stagedBytes: 0, uploadingCount: 0 })
    await catalog.write((tx) => tx.documents.put('thing', 'b', 1, { unique: { name: 'a' } }))
  })

  must('fail only the transaction that failed among many at once', async (catalog) => {
    const outcomes = await Promise.allSettled(
      Array.from({ length: 50 }, (_, i) =>
        catalog.write(async (tx) => {
          await tx.documents.put('thing', `k${i}`, i)
          if (i % 3 === 0) throw new ServiceError('denied', 'no')
          return i
        }),
      ),
    )
    const kept = (await catalog.documents.list<number>('thing')).map(({ body }) => body).sort((a, b) => a - b)
    const resolved = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
    assert.deepEqual(kept, resolved)
    assert.equal(kept.length, 33)
  })

  must('run transactions alone: no update is lost among concurrent writers', async (catalog) => {
    const image = anImage()
    await catalog.write(async (tx) => {
      await tx.images.create(image)
      await tx.documents.put('counter', 'c', 0)
    })
    const readThenAdd = () =>
      catalog.write(async (tx) => {
        const count = await tx.documents.get<number>('counter', 'c')
        await new Promise((resolve) => setImmediate(resolve))
        await tx.documents.put('counter', 'c', (count?.body ?? 0) + 1)
      })
    const compareAndSet = async () => {
      for (;;) {
        const read = await catalog.images.get(image.id)
        assert.ok(read)
        const bytes = (read.size ?? 0) + 1
        const done = await catalog
          .write((tx) => tx.images.update(image.id, read.version, { size: bytes }))
          .catch((error: unknown) => {
            if (error instanceof ServiceError && error.code === 'conflict') return undefined
            throw error
          })
        if (done) return
      }
    }
    await Promise.all([...Array.from({ length: 40 }, readThenAdd), ...Array.from({ length: 20 }, compareAndSet)])
    assert.equal((await catalog.documents.get('counter', 'c'))?.body, 40)
    assert.equal((await catalog.images.get(image.id))?.size, 30)
    assert.equal((await catalog.images.get(image.id))?.version, 21)
  })

  must('hide a transaction from readers until it is done', async (catalog) => {
    let seen: unknown = 'not read'
    await catalog.write(async (tx) => {
      await tx.documents.put('thing', 'a', 1)
      seen = await catalog.documents.get('thing', 'a')
    })
    assert.equal(seen, undefined)
    assert.equal((await catalog.documents.get('thing', 'a'))?.body, 1)
  })

  must('show what a write has changed to every read after it, whatever was read before', async (catalog) => {
    const image = anImage({ owner: 'p1', visibility: 'shared' })
    await catalog.write((tx) => tx.images.create(image))
    await catalog.write((tx) => tx.documents.put('token', 'old', 1, { indexes: { user: 'u' } }))
    const seen = async () => [
      (await catalog.images.list({ viewer: { projectId: 'p1' }, limit: 5 })).map(({ name, version }) => `${name} ${version}`),
      (await catalog.images.list({ viewer: { projectId: 'p2' }, limit: 5 })).length,
      (await catalog.images.get(image.id))?.version,
      (await catalog.documents.get('token', 'old'))?.body,
      (await catalog.documents.get('token', 'new'))?.body,
      (await catalog.documents.list('token', { index: { name: 'user', value: 'u' } })).length,
    ]
    for (let time = 0; time < 2; time += 1) assert.deepEqual(await seen(), [['debian 1'], 0, 1, 1, undefined, 1])
    await catalog.write((tx) => tx.images.update(image.id, 1, { name: 'other' }))
    assert.deepEqual(await seen(), [['other 2'], 0, 2, 1, undefined, 1])
    await catalog.write((tx) => tx.images.putMember(aMember(image.id, 'p2', { status: 'accepted' })))
    assert.deepEqual(await seen(), [['other 2'], 1, 2, 1, undefined, 1])
    await catalog.write((tx) => tx.images.deleteMember(image.id, 'p2'))
    assert.deepEqual(await seen(), [['other 2'], 0, 2, 1, undefined, 1])
    await catalog.write(({ documents }) => documents.put('token', 'new', 2, { indexes: { user: 'u' }, expiresAt: 5 }))
    assert.deepEqual(await seen(), [['other 2'], 0, 2, 1, 2, 2])
    await catalog.write(({ documents }) => documents.deleteExpired('token', 6))
    assert.deepEqual(await seen(), [['other 2'], 0, 2, 1, undefined, 1])
    await catalog.write(({ documents }) => documents.deleteWhere('token', { name: 'user', value: 'u' }))
    assert.deepEqual(await seen(), [['other 2'], 0, 2, undefined, undefined, 0])
    await catalog.write((tx) => tx.images.update(image.id, 2, { status: 'deleted', deletedAt: 1 }))
    assert.deepEqual(await seen(), [[], 0, 3, undefined, undefined, 0])
  })

  must('let no read that a write overtakes be seen by later ones', async (catalog) => {
    const image = anImage()
    await catalog.write((tx) => tx.images.create(image))
    const query: ImageQuery = { viewer: { all: true }, limit: 5 }
    for (let steps = 0; steps < 200; steps += 1) {
      await catalog.write(async (tx) => {
        await tx.images.update(image.id, 2 * steps + 1, { name: 'before' })
        await tx.documents.put('token', 't', steps)
      })
      const writing = catalog.write(async (tx) => {
        await tx.images.update(image.id, 2 * steps + 2, { name: String(steps) })
        await tx.documents.delete('token', 't')
      })
      for (let step = 0; step < steps; step += 1) await undefined // so that the reads meet the write at each of its steps
      const reading = [
        catalog.images.list(query),
        catalog.images.get(image.id),
        catalog.documents.get('token', 't'),
        catalog.documents.list('token'),
      ]
      await Promise.all([writing, ...reading])
      assert.equal((await catalog.images.list(query))[0]?.name, String(steps))
      assert.equal((await catalog.images.get(image.id))?.name, String(steps))
      assert.equal(await catalog.documents.get('token', 't'), undefined)
      assert.deepEqual(await catalog.documents.list('token'), [])
    }
  })

  must('keep the members of an image', async (catalog) => {
    const image = anImage()
    await catalog.write(async (tx) => {
      await tx.images.create(image)
      await tx.images.putMember(aMember(image.id, 'p3', { createdAt: 2 }))
      await tx.images.putMember(aMember(image.id, 'p2', { createdAt: 2 }))
      await tx.images.putMember(aMember(image.id, 'p9', { createdAt: 1 }))
    })
    const accepted = aMember(image.id, 'p2', { createdAt: 2, updatedAt: 3, status: 'accepted' })
    await catalog.write((tx) => tx.images.putMember(accepted))
    assert.deepEqual(
      (await catalog.images.members(image.id)).map(({ memberId }) => memberId),
      ['p9', 'p2', 'p3'],
    )
    assert.deepEqual(await catalog.images.member(image.id, 'p2'), accepted)
    assert.equal(await catalog.write((tx) => tx.images.deleteMember(image.id, 'p2')), true)
    assert.equal(await catalog.write((tx) => tx.images.deleteMember(image.id, 'p2')), false)
    assert.equal(await catalog.images.member(image.id, 'p2'), undefined)
    await assert.rejects(
      catalog.write((tx) => tx.images.putMember(aMember(randomUUID(), 'p2'))),
      { code: 'not-found' },
    )
  })

  must('count the use of a project exactly, through every change', async (catalog) => {
    const [first, second] = [anImage({ size: 100 }), anImage({ size: null, status: 'queued' })]
    await catalog.write(async (tx) => {
      await tx.images.create(first)
      await tx.images.create(second)
      await tx.images.update(second.id, 1, { status: 'saving', notes: { reservedBytes: 70 } })
    })
    assert.deepEqual(await catalog.images.usage('p1'), { imageCount: 2, totalBytes: 170, stagedBytes: 0, uploadingCount: 1 })
    await catalog.write((tx) => tx.images.update(second.id, 2, { status: 'active', size: 60, notes: {} }))
    assert.deepEqual(await catalog.images.usage('p1'), { imageCount: 2, totalBytes: 160, stagedBytes: 0, uploadingCount: 0 })
    await catalog.write((tx) => tx.images.update(second.id, 3, { status: 'uploading', stagedManifest: 'm' }))
    assert.deepEqual(await catalog.images.usage('p1'), { imageCount: 2, totalBytes: 100, stagedBytes: 60, uploadingCount: 1 })
    await catalog.write((tx) => tx.images.update(first.id, 1, { owner: 'p2' }))
    assert.deepEqual(await catalog.images.usage('p2'), { imageCount: 1, totalBytes: 100, stagedBytes: 0, uploadingCount: 0 })
    await catalog.write((tx) => tx.images.update(second.id, 4, { visibility: 'public' }))
    assert.equal((await catalog.images.usage('p1')).imageCount, 0, "public images are nobody's own")
    await catalog.write((tx) => tx.images.update(second.id, 5, { status: 'deleted' }))
    assert.deepEqual(await catalog.images.usage('p1'), { imageCount: 0, totalBytes: 0, stagedBytes: 0, uploadingCount: 0 })
  })

  must('find an image by tag and property where it now belongs, and nowhere else', async (catalog) => {
    const image = anImage({ tags: ['t'], properties: { os: 'x' }, owner: 'p1', visibility: 'private' })
    await catalog.write((tx) => tx.images.create(image))
    const finders = async () => {
      const found: string[] = []
      for (const projectId of ['p1', 'p2', 'p3']) {
        for (const filter of [{ tags: ['t'] }, { properties: { os: 'x' } }]) {
          const listed = await catalog.images.list({ viewer: { projectId }, limit: 5, ...filter })
          if (listed.length > 0) found.push(projectId)
        }
      }
      return found
    }
    let version = 1
    const change = async (changes: Partial<ImageRecord>) => {
      await catalog.write((tx) => tx.images.update(image.id, version, changes))
      version += 1
    }
    assert.deepEqual(await finders(), ['p1', 'p1'])
    await change({ owner: 'p2' })
    assert.deepEqual(await finders(), ['p2', 'p2'])
    await change({ visibility: 'public' })
    assert.deepEqual(await finders(), ['p1', 'p1', 'p2', 'p2', 'p3', 'p3'])
    await change({ visibility: 'private', createdAt: 5 })
    assert.deepEqual(await finders(), ['p2', 'p2'])
    await change({ tags: ['u'] })
    assert.deepEqual(await finders(), ['p2'])
    await change({ hidden: true })
    assert.deepEqual(await finders(), [])
    await change({ hidden: false, tags: ['t'], properties: { os: 'y' } })
    assert.deepEqual(await finders(), ['p2'])
  })

  must('name every manifest', async (catalog) => {
    const [a, b] = [anImage({ manifest: 'm1' }), anImage({ owner: 'p2', manifest: 'm1', stagedManifest: 'm2' })]
    await catalog.write(async (tx) => {
      await tx.images.create(a)
      await tx.images.create(b)
      await tx.images.create(anImage())
    })
    const found = await Array.fromAsync(
      catalog.images.manifests(),
      ({ imageId, owner, manifest }) => `${imageId} ${owner} ${manifest}`,
    )
    assert.deepEqual(found.sort(), [`${a.id} p1 m1`, `${b.id} p2 m1`, `${b.id} p2 m2`].sort())
  })

  must('refuse a marker that the viewer cannot see', async (catalog) => {
    const [own, foreign, gone] = [anImage(), anImage({ owner: 'p2' }), anImage({ status: 'deleted' })]
    await catalog.write(async (tx) => {
      for (const image of [own, foreign, gone]) await tx.images.create(image)
    })
    const after = (marker: string) => catalog.images.list({ viewer: { projectId: 'p1' }, limit: 5, marker })
    for (const marker of [foreign.id, gone.id, 'nonsense']) await assert.rejects(after(marker), { code: 'invalid-request' })
    assert.deepEqual(await after(own.id), [])
  })

  must('refuse a list without bounds', async (catalog) => {
    const viewer = { projectId: 'p1' }
    for (const limit of [0, -1, 1.5, 1e9, Number.NaN]) {
      await assert.rejects(catalog.images.list({ viewer, limit }), { code: 'invalid-request' })
    }
    await assert.rejects(catalog.images.list({ viewer, limit: 1, tags: Array.from({ length: 99 }, String) }), {
      code: 'invalid-request',
    })
    await assert.rejects(catalog.images.list({ viewer, limit: 1, ids: Array.from({ length: 9_999 }, String) }), {
      code: 'invalid-request',
    })
  })

  must('list what a slow model lists, and page through it without gap or repetition', (catalog) => listsLikeTheModel(catalog))

  must('put, replace and delete documents by compare-and-set', async (catalog) => {
    const put = (body: unknown, expect?: number) =>
      catalog.write((tx) => tx.documents.put('user', 'u1', body, expect === undefined ? {} : { expect }))
    assert.deepEqual(await put({ name: 'ann' }, 0), { kind: 'user', key: 'u1', version: 1, body: { name: 'ann' } })
    await assert.rejects(put({}, 0), { code: 'conflict' })
    assert.equal((await put({ name: 'bob' }, 1)).version, 2)
    await assert.rejects(put({}, 1), { code: 'conflict' })
    assert.equal((await put({ name: 'eve' })).version, 3)
    assert.deepEqual((await catalog.documents.get('user', 'u1'))?.body, { name: 'eve' })
    assert.equal(await catalog.documents.get('group', 'u1'), undefined)
    await assert.rejects(
      catalog.write((tx) => tx.documents.delete('user', 'u1', { expect: 1 })),
      { code: 'conflict' },
    )
    assert.equal(await catalog.write((tx) => tx.documents.delete('user', 'u1', { expect: 3 })), true)
    assert.equal(await catalog.write((tx) => tx.documents.delete('user', 'u1')), false)
  })

  must('hold a unique value for one key of a kind', async (catalog) => {
    const put = (kind: string, key: string, name: string) =>
      catalog.write((tx) => tx.documents.put(kind, key, {}, { unique: { name } }))
    await put('user', 'u1', 'ann')
    await assert.rejects(put('user', 'u2', 'ann'), { code: 'conflict' })
    await put('group', 'u2', 'ann')
    await put('user', 'u1', 'ann')
    await put('user', 'u1', 'bob')
    await put('user', 'u2', 'ann')
    await catalog.write((tx) => tx.documents.delete('user', 'u1'))
    await put('user', 'u3', 'bob')
    const found = await catalog.documents.list('user', { index: { name: 'name', value: 'bob' } })
    assert.deepEqual(
      found.map(({ key }) => key),
      ['u3'],
    )
  })

  must('let only one of many claim a unique value', async (catalog) => {
    const claims = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) =>
        catalog.write((tx) => tx.documents.put('user', `u${i}`, {}, { unique: { name: 'root' } })),
      ),
    )
    assert.equal(claims.filter(({ status }) => status === 'fulfilled').length, 1)
    assert.equal((await catalog.documents.list('user')).length, 1)
  })

  must('list documents by index, prefix, position, limit and direction', async (catalog) => {
    await catalog.write(async (tx) => {
      for (const [key, colour] of [
        ['a/1', 'red'],
        ['a/2', 'blue'],
        ['a/3', 'red'],
        ['b/1', 'red'],
        ['a', 'red'],
      ] as const) {
        await tx.documents.put('thing', key, { colour }, { indexes: { colour } })
      }
      await tx.documents.put('other', 'a/9', {}, { indexes: { colour: 'red' } })
    })
    const keys = async (query: Parameters<Catalog['documents']['list']>[1]) =>
      (await catalog.documents.list('thing', query)).map(({ key }) => key)
    const red = { name: 'colour', value: 'red' }
    assert.deepEqual(await keys({}), ['a', 'a/1', 'a/2', 'a/3', 'b/1'])
    assert.deepEqual(await keys({ index: red }), ['a', 'a/1', 'a/3', 'b/1'])
    assert.deepEqual(await keys({ prefix: 'a/' }), ['a/1', 'a/2', 'a/3'])
    assert.deepEqual(await keys({ index: red, prefix: 'a/', after: 'a/1' }), ['a/3'])
    assert.deepEqual(await keys({ limit: 2, after: 'a' }), ['a/1', 'a/2'])
    assert.deepEqual(await keys({ direction: 'desc', after: 'a/3', limit: 2 }), ['a/2', 'a/1'])
    assert.deepEqual(await keys({ limit: 0 }), [])
    assert.equal(await catalog.write((tx) => tx.documents.deleteWhere('thing', red)), 4)
    assert.deepEqual(await keys({}), ['a/2'])
  })

  must('delete what has expired, and only that', async (catalog) => {
    await catalog.write(async (tx) => {
      await tx.documents.put('token', 'old', {}, { expiresAt: 10, unique: { hash: 'x' } })
      await tx.documents.put('token', 'new', {}, { expiresAt: 20 })
      await tx.documents.put('token', 'ever', {})
      await tx.documents.put('other', 'old', {}, { expiresAt: 10 })
    })
    assert.equal(await catalog.write((tx) => tx.documents.deleteExpired('token', 20)), 1)
    assert.deepEqual(
      (await catalog.documents.list('token')).map(({ key }) => key),
      ['ever', 'new'],
    )
    assert.ok(await catalog.documents.get('other', 'old'))
    await catalog.write((tx) => tx.documents.put('token', 'again', {}, { unique: { hash: 'x' } }))
  })
}

// ---------------------------------------------------------------- lists and their model

const oneOf = <T>(...values: readonly T[]) => fc.constantFrom(...values)
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined, freq: 3 })
/** One filter in six, so that what several filters find together is not always nothing. */
const rarely = <T>(arbitrary: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 5, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary })
const projects = ['p1', 'p2', 'p3'] as const

const someImage: fc.Arbitrary<ImageRecord> = fc
  .record({
    id: fc.uuid(),
    name: oneOf(null, '', 'a', 'B', 'ab', 'é', '\uffff', '😀'),
    status: oneOf('queued', 'saving', 'active', 'active', 'active', 'deactivated', 'killed', 'deleted'),
    visibility: oneOf('public', 'private', 'shared', 'community'),
    owner: oneOf(null, ...projects),
    protected: fc.boolean(),
    hidden: oneOf(false, false, false, true),
    diskFormat: oneOf(null, 'raw', 'qcow2'),
    containerFormat: oneOf(null, 'bare', 'ovf'),
    minDisk: oneOf(0, 1, 2),
    minRam: oneOf(0, 512),
    size: oneOf(null, 0, 1, 5, 5, 9_007_199_254_740_991),
    virtualSize: oneOf(null, 0, 7),
    checksum: oneOf(null, 'c1', 'c2'),
    hashAlgo: oneOf(null, 'sha512'),
    hashValue: oneOf(null, 'h1', 'h2'),
    createdAt: oneOf(1_000, 1_500, 2_000, 3_000),
    updatedAt: oneOf(1_000, 2_000, 2_999, 4_000),
    tags: fc.uniqueArray(oneOf('t1', 't2', 't3')).map((tags) => tags.sort()),
    properties: fc.dictionary(oneOf('os', 'arch', '__proto__x'), oneOf('a', 'b'), { maxKeys: 2, noNullPrototype: true }),
  })
  .map((fields) => anImage(fields as Partial<ImageRecord>))

const sortFields: readonly SortKey['field'][] = [
  'name',
  'status',
  'visibility',
  'owner',
  'protected',
  'hidden',
  'diskFormat',
  'containerFormat',
  'minDisk',
  'minRam',
  'size',
  'virtualSize',
  'checksum',
  'hashAlgo',
  'hashValue',
  'createdAt',
  'updatedAt',
  'id',
]
const someQuery = fc.record({
  viewer: oneOf<ImageQuery['viewer']>(
    { all: true },
    { all: true, projectId: 'p1' },
    { all: true, projectId: null },
    { projectId: null },
    ...projects.map((projectId) => ({ projectId })),
  ),
  visibility: optional(oneOf('public', 'private', 'shared', 'community', 'all')),
  memberStatus: optional(oneOf('pending', 'accepted', 'rejected', 'all')),
  owner: rarely(oneOf(...projects)),
  hidden: rarely(fc.boolean()),
  protected: rarely(fc.boolean()),
  deleted: rarely(fc.boolean()),
  names: rarely(fc.array(oneOf('', 'a', 'B', 'zz'), { maxLength: 3 })),
  statuses: rarely(fc.array(oneOf('queued', 'active', 'deleted'), { maxLength: 3 })),
  diskFormats: rarely(fc.array(oneOf('raw', 'qcow2'), { maxLength: 3 })),
  containerFormats: rarely(fc.array(oneOf('bare', 'ovf'), { maxLength: 2 })),
  checksum: rarely(oneOf('c1', 'c3')),
  hashValue: rarely(oneOf('h1', 'h3')),
  minDisk: rarely(oneOf(0, 1)),
  minRam: rarely(oneOf(0, 512)),
  sizeMin: rarely(oneOf(0, 1, 6)),
  sizeMax: rarely(oneOf(0, 5)),
  tags: rarely(fc.array(oneOf('t1', 't2'), { maxLength: 2 })),
  properties: rarely(fc.dictionary(oneOf('os', 'arch'), oneOf('a', 'b'), { maxKeys: 2, noNullPrototype: true })),
  times: rarely(
    fc.array(
      fc.record({
        field: oneOf('createdAt', 'updatedAt'),
        op: oneOf('gt', 'gte', 'lt', 'lte', 'eq', 'neq'),
        value: oneOf(1_000, 2_000, 2_999),
      }),
      { maxLength: 2 },
    ),
  ),
  sort: optional(fc.array(fc.record({ field: oneOf(...sortFields), direction: oneOf('asc', 'desc') }), { maxLength: 3 })),
  limit: oneOf(1, 2, 3, 50),
})

async function listsLikeTheModel(catalog: Catalog): Promise<void> {
  const images = fc.sample(someImage, { numRuns: 60, seed: 20 })
  const members = fc
    .sample(
      fc.record({ at: fc.nat(59), memberId: oneOf(...projects), status: oneOf<MemberStatus>('pending', 'accepted', 'rejected') }),
      {
        numRuns: 60,
        seed: 21,
      },
    )
    .map(({ at, memberId, status }) => aMember(images[at]!.id, memberId, { status }))
  const standing = [...new Map(members.map((member) => [`${member.imageId} ${member.memberId}`, member])).values()]
  await catalog.write(async (tx) => {
    // created as something else and then changed, so that updates keep the indexes right
    for (const [i, image] of images.entries()) {
      const first = fc.sample(someImage, { numRuns: 1, seed: i })[0]!
      await tx.images.create({ ...first, id: image.id })
      const { id, version, ...fields } = image
      await tx.images.update(id, version, fields)
    }
    for (const member of members) await tx.images.putMember(member)
  })
  const stored = images.map((image) => ({ ...image, version: 2 }))
  await fc.assert(
    fc.asyncProperty(someQuery, async (fields) => {
      const query = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as unknown as ImageQuery
      const wanted = modelList(stored, standing, query)
      const pages: ImageRecord[] = []
      for (;;) {
        const marker = pages.at(-1)?.id
        const page = await catalog.images.list(marker === undefined ? query : { ...query, marker })
        assert.ok(page.length <= query.limit)
        pages.push(...page)
        if (page.length < query.limit) break
      }
      assert.deepEqual(pages, wanted)
    }),
    { numRuns: 1_000 },
  )
}

const absent = <T>(wanted: T | undefined, holds: (wanted: T) => boolean): boolean => wanted === undefined || holds(wanted)
const whole = (ms: number) => Math.floor(ms / 1000)

function modelList(images: readonly ImageRecord[], members: readonly ImageMember[], query: ImageQuery): ImageRecord[] {
  const { viewer, visibility, memberStatus = 'accepted' } = query
  const project = viewer.projectId
  const shared = (image: ImageRecord) =>
    image.visibility === 'shared' &&
    members.some((m) => m.imageId === image.id && m.memberId === project && (memberStatus === 'all' || m.status === memberStatus))
  const visible = (image: ImageRecord) => {
    const own = project !== null && project !== undefined && image.owner === project
    if (visibility !== undefined && visibility !== 'all' && image.visibility !== visibility) return false
    const communityHidden = visibility === undefined && image.visibility === 'community' && !own
    if ('all' in viewer) return project === undefined || !communityHidden
    return !communityHidden && (own || image.visibility === 'public' || image.visibility === 'community' || shared(image))
  }
  const times = { gt: 1, gte: 1, lt: 1, lte: 1, eq: 1, neq: 1 }
  const timeHolds = (at: number, op: keyof typeof times, value: number) =>
    ({ gt: at > value, gte: at >= value, lt: at < value, lte: at <= value, eq: at === value, neq: at !== value })[op]
  const matches = (image: ImageRecord) =>
    (query.deleted ? image.status === 'deleted' : image.status !== 'deleted' && image.status !== 'killed') &&
    absent(query.hidden ?? (query.deleted ? undefined : false), (hidden) => image.hidden === hidden) &&
    absent(query.protected, (wanted) => image.protected === wanted) &&
    absent(query.owner, (owner) => image.owner === owner) &&
    absent(query.names, (names) => image.name !== null && names.includes(image.name)) &&
    absent(query.statuses, (statuses) => statuses.includes(image.status)) &&
    absent(query.diskFormats, (formats) => image.diskFormat !== null && formats.includes(image.diskFormat)) &&
    absent(query.containerFormats, (formats) => image.containerFormat !== null && formats.includes(image.containerFormat)) &&
    absent(query.checksum, (checksum) => image.checksum === checksum) &&
    absent(query.hashValue, (value) => image.hashValue === value) &&
    absent(query.minDisk, (minDisk) => image.minDisk === minDisk) &&
    absent(query.minRam, (minRam) => image.minRam === minRam) &&
    absent(query.sizeMin, (least) => image.size !== null && image.size >= least) &&
    absent(query.sizeMax, (most) => image.size !== null && image.size <= most) &&
    (query.tags ?? []).every((tag) => image.tags.includes(tag)) &&
    Object.entries(query.properties ?? {}).every(([name, value]) => image.properties[name] === value) &&
    (query.times ?? []).every(({ field, op, value }) => timeHolds(whole(image[field]), op, whole(value)))
  const asked: readonly SortKey[] = query.sort?.length ? query.sort : [{ field: 'createdAt', direction: 'desc' }]
  const keys = [...asked, { field: 'id', direction: asked.at(-1)!.direction } as const]
  const order = (a: ImageRecord, b: ImageRecord) => {
    for (const { field, direction } of keys) {
      const sign = compare(a[field], b[field])
      if (sign !== 0) return direction === 'asc' ? sign : -sign
    }
    return 0
  }
  return images.filter((image) => visible(image) && matches(image)).sort(order)
}

type Comparable = string | number | boolean | null
/** Nothing sorts first; text by its bytes. */
function compare(a: Comparable, b: Comparable): number {
  if (a === b) return 0
  if (a === null || b === null) return a === null ? -1 : 1
  if (typeof a === 'string' && typeof b === 'string') return Buffer.compare(Buffer.from(a), Buffer.from(b))
  return a < b ? -1 : 1
}
