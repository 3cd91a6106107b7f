import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { isServiceError } from '../base/errors.ts'
import { deactivate, reactivate } from './activation.ts'
import { newImageFrom } from './attributes.ts'
import { listAudit } from './audit.ts'
import { deleteImage } from './delete-image.ts'
import { showImage } from './find-image.ts'
import { type ImageWorld, imageWorld, someone } from './image-world.suite.ts'
import { listImages } from './list-images.ts'
import { addMember, answerMembership, deleteMember, listMembers, showMember } from './members.ts'
import { type Change, patchImage } from './patch-image.ts'
import { parseProtections } from './protections/protections.ts'
import { addTag, deleteTag } from './tags.ts'

let world: ImageWorld
before(async () => {
  world = await imageWorld()
})
after(() => world.close())

const [mine, theirs, admin, reader] = [someone('mine'), someone('theirs'), someone('root', 'admin'), someone('mine', 'reader')]
const refused = (code: string, work: () => unknown) => assert.rejects(async () => work(), { code })

// ---------------------------------------------------------------- create

test('an image begins queued, shared, and owned by the project that made it', async () => {
  const image = await world.create(mine, { name: 'n', a: 'b', tags: ['z', 'a', 'a'] })
  const { status, visibility, owner, tags, properties, version, size, manifest } = await showImage(world.ports, mine, image.id)
  assert.deepEqual(
    { status, visibility, owner, tags, properties, version, size, manifest },
    {
      status: 'queued',
      visibility: 'shared',
      owner: 'mine',
      tags: ['a', 'z'],
      properties: { a: 'b' },
      version: 1,
      size: null,
      manifest: null,
    },
  )
})

const badMembers: readonly [string, Record<string, unknown>, string][] = [
  ['a name that is a number', { name: 3 }, 'invalid-request'],
  ['a name of 256 characters', { name: 'x'.repeat(256) }, 'invalid-request'],
  ['half a surrogate pair', { name: '\ud800' }, 'invalid-request'],
  ['a name with NUL', { name: 'a\0b' }, 'invalid-request'],
  ['an unknown visibility', { visibility: 'secret' }, 'invalid-request'],
  ['a negative min_ram', { min_ram: -1 }, 'invalid-request'],
  ['a min_disk that databases cannot keep', { min_disk: 2 ** 31 }, 'invalid-request'],
  ['an unknown disk_format', { disk_format: 'iso9660' }, 'invalid-request'],
  ['tags that are no list', { tags: 'a' }, 'invalid-request'],
  ['a tag of 256 characters', { tags: ['x'.repeat(256)] }, 'invalid-request'],
  ['a property that is an object', { a: { b: 1 } }, 'invalid-request'],
  ['a property whose name is 256 characters', { ['k'.repeat(256)]: 'v' }, 'invalid-request'],
  ['a property named by nothing', { '': 'v' }, 'invalid-request'],
  ['__proto__', JSON.parse('{"__proto__": "x"}') as Record<string, unknown>, 'invalid-request'],
  ['an id that is no UUID', { id: '../../etc/passwd' }, 'invalid-request'],
  ['kernel_id that is no id', { kernel_id: 'vmlinuz' }, 'invalid-request'],
  ['a status', { status: 'active' }, 'denied'],
  ['a checksum', { checksum: 'x' }, 'denied'],
  ['a size', { size: 1 }, 'denied'],
  ['locations', { locations: [] }, 'denied'],
  ['a property in the name space of Glance', { os_glance_failed_import: 'x' }, 'denied'],
  ['a property in our name space', { imprint_failure: 'x' }, 'denied'],
  ['public by a member', { visibility: 'public' }, 'denied'],
  ['an owner that is another project', { owner: 'theirs' }, 'denied'],
  ['nobody as owner', { owner: null }, 'denied'],
  ['129 tags', { tags: Array.from({ length: 129 }, (_, i) => `t${i}`) }, 'too-large'],
  ['129 properties', Object.fromEntries(Array.from({ length: 129 }, (_, i) => [`p${i}`, 'v'])), 'too-large'],
  [
    'properties that fill a list',
    Object.fromEntries(Array.from({ length: 5 }, (_, i) => [`p${i}`, 'v'.repeat(60_000)])),
    'too-large',
  ],
]
for (const [what, members, code] of badMembers) {
  test(`create refuses ${what}`, () => refused(code, () => world.create(mine, members)))
}

test('an id is never used twice, in whatever letters, not even after its image is deleted', async () => {
  const { id } = await world.create(mine, { id: 'ABCDEF00-1111-4222-8333-444455556666' })
  assert.equal(id, 'abcdef00-1111-4222-8333-444455556666')
  await refused('conflict', () => world.create(theirs, { id }))
  await deleteImage(world.ports, mine, id)
  await refused('conflict', () => world.create(mine, { id: id.toUpperCase() }))
})

test('readers make nothing; administrators make what is public, and for others', async () => {
  await refused('denied', () => world.create(reader))
  const image = await world.create(admin, { visibility: 'public', owner: 'theirs' })
  assert.equal(image.owner, 'theirs')
})

test('constructor, toString and hasOwnProperty are names of properties like any other', async () => {
  const properties = { constructor: 'a', toString: 'b', hasOwnProperty: 'c', valueOf: 'd' }
  const image = await world.create(mine, properties)
  assert.deepEqual((await showImage(world.ports, mine, image.id)).properties, properties)
  const patched = await patchImage(world.ports, mine, image.id, [{ op: 'remove', name: 'constructor' }])
  assert.equal(Object.hasOwn(patched.properties, 'constructor'), false)
  await refused('conflict', () => patchImage(world.ports, mine, image.id, [{ op: 'remove', name: '__defineGetter__' }]))
})

// ---------------------------------------------------------------- patch

const patches: readonly [string, readonly Change[], string][] = [
  ['the id', [{ op: 'replace', name: 'id', value: 'x' }], 'denied'],
  ['the status', [{ op: 'replace', name: 'status', value: 'active' }], 'denied'],
  ['the checksum', [{ op: 'add', name: 'checksum', value: 'x' }], 'denied'],
  ['locations', [{ op: 'add', name: 'locations', value: { url: 'file:///etc/passwd', metadata: {} } }], 'denied'],
  ['the owner, by who is no administrator', [{ op: 'add', name: 'owner', value: 'theirs' }], 'denied'],
  ['visibility to public, by who is no administrator', [{ op: 'replace', name: 'visibility', value: 'public' }], 'denied'],
  ['the removal of an attribute', [{ op: 'remove', name: 'name' }], 'denied'],
  ['the removal of what is not there', [{ op: 'remove', name: 'nothing' }], 'conflict'],
  ['the replacement of what is not there', [{ op: 'replace', name: 'nothing', value: 'x' }], 'conflict'],
  ['an addition of what is there, in the older form', [{ op: 'add', name: 'name', value: 'x', addOnlyNew: true }], 'conflict'],
  ['a wrong type', [{ op: 'replace', name: 'protected', value: 'yes' }], 'invalid-request'],
  ['__proto__', [{ op: 'add', name: '__proto__', value: 'x' }], 'invalid-request'],
  [
    'more properties than there may be',
    Array.from({ length: 129 }, (_, i) => ({ op: 'add', name: `p${i}`, value: 'v' }) as const),
    'too-large',
  ],
]
for (const [what, changes, code] of patches) {
  test(`a patch refuses ${what}, and changes nothing`, async () => {
    const image = await world.create(mine, { name: 'before', a: 'b' })
    await refused(code, () => patchImage(world.ports, mine, image.id, [{ op: 'add', name: 'c', value: 'd' }, ...changes]))
    assert.deepEqual(await showImage(world.ports, mine, image.id), image)
  })
}

test('formats are fixed once the bytes are there', async () => {
  const image = await world.create(mine)
  await patchImage(world.ports, mine, image.id, [{ op: 'replace', name: 'disk_format', value: 'qcow2' }])
  await world.ports.catalog.write(async ({ images }) => images.update(image.id, 2, { status: 'active' }))
  await refused('denied', () => patchImage(world.ports, mine, image.id, [{ op: 'replace', name: 'disk_format', value: 'raw' }]))
})

test('an administrator gives an image to another project', async () => {
  const image = await world.create(mine)
  await patchImage(world.ports, admin, image.id, [{ op: 'replace', name: 'owner', value: 'theirs' }])
  await refused('not-found', () => showImage(world.ports, mine, image.id))
  assert.equal((await showImage(world.ports, theirs, image.id)).owner, 'theirs')
})

test('no update is lost when fifty change one image at once', async () => {
  const image = await world.create(mine)
  await Promise.all(
    Array.from({ length: 50 }, (_, i) =>
      patchImage(world.ports, mine, image.id, [{ op: 'add', name: `p${i}`, value: String(i) }]),
    ),
  )
  const { properties, version } = await showImage(world.ports, mine, image.id)
  assert.equal(Object.keys(properties).length, 50)
  assert.equal(version, 51)
})

test('any patch is done or refused with a code, and what only the service sets stays as it was', async () => {
  const name = fc.oneof(
    fc.constantFrom(
      'name',
      'owner',
      'status',
      'tags',
      'visibility',
      'min_ram',
      '__proto__',
      'constructor',
      'id',
      'locations',
      'a',
    ),
    fc.string({ maxLength: 300 }),
  )
  const value = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.jsonValue(),
    fc.constantFrom('public', 'theirs', 'active', null, -1),
  )
  const change = fc.oneof(
    fc.record({ op: fc.constantFrom('add', 'replace'), name, value, addOnlyNew: fc.boolean() }),
    fc.record({ op: fc.constant('remove'), name }),
  ) as fc.Arbitrary<Change>
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 6 }), async (changes) => {
      const image = await world.create(mine, { name: 'n', a: 'b' })
      try {
        await patchImage(world.ports, mine, image.id, changes)
      } catch (error) {
        assert.ok(isServiceError(error), `leaked ${error}`)
      }
      const { id, status, owner, createdAt, checksum, manifest } = await showImage(world.ports, mine, image.id)
      assert.deepEqual(
        { id, status, owner, createdAt, checksum, manifest },
        { id: image.id, status: 'queued', owner: 'mine', createdAt: image.createdAt, checksum: null, manifest: null },
      )
    }),
    { numRuns: 100 },
  )
})

// ---------------------------------------------------------------- delete, tags, activation

test('a protected image is not deleted, not even by an administrator', async () => {
  const image = await world.create(mine, { protected: true })
  await refused('denied', () => deleteImage(world.ports, mine, image.id))
  await refused('denied', () => deleteImage(world.ports, admin, image.id))
  await patchImage(world.ports, mine, image.id, [{ op: 'replace', name: 'protected', value: false }])
  await deleteImage(world.ports, mine, image.id)
  for (const caller of [mine, theirs, admin]) await refused('not-found', () => showImage(world.ports, caller, image.id))
  await refused('not-found', () => deleteImage(world.ports, mine, image.id))
})

test('tags are added once, deleted once, and counted', async () => {
  const { id } = await world.create(mine)
  await addTag(world.ports, mine, id, 'a')
  await addTag(world.ports, mine, id, 'a')
  assert.deepEqual((await showImage(world.ports, mine, id)).tags, ['a'])
  await refused('not-found', () => deleteTag(world.ports, mine, id, 'b'))
  await deleteTag(world.ports, mine, id, 'a')
  await refused('invalid-request', () => addTag(world.ports, mine, id, 'x'.repeat(256)))
  for (let i = 0; i < 128; i += 1) await addTag(world.ports, mine, id, `t${i}`)
  await refused('too-large', () => addTag(world.ports, mine, id, 'one more'))
  await refused('not-found', () => addTag(world.ports, theirs, id, 'x'))
})

test('only an image that has its bytes is deactivated, and doing it again does nothing', async () => {
  const { id } = await world.create(mine)
  await refused('denied', () => deactivate(world.ports, mine, id))
  await world.ports.catalog.write(async ({ images }) => images.update(id, 1, { status: 'active' }))
  await deactivate(world.ports, mine, id)
  await deactivate(world.ports, mine, id)
  assert.equal((await showImage(world.ports, mine, id)).status, 'deactivated')
  await reactivate(world.ports, mine, id)
  assert.equal((await showImage(world.ports, mine, id)).status, 'active')
})

// ---------------------------------------------------------------- members

test('sharing: the owner shares, the member answers, and each does only that', async () => {
  const { id } = await world.create(mine, { name: 'shared one' })
  await refused('not-found', () => showImage(world.ports, theirs, id))
  await addMember(world.ports, mine, id, 'theirs')
  await addMember(world.ports, mine, id, 'third')
  await refused('conflict', () => addMember(world.ports, mine, id, 'theirs'))
  await refused('invalid-request', () => addMember(world.ports, mine, id, ''))
  assert.equal((await showImage(world.ports, theirs, id)).id, id)
  assert.deepEqual(
    (await listMembers(world.ports, theirs, id)).map((m) => m.memberId),
    ['theirs'],
  )
  assert.deepEqual((await listMembers(world.ports, mine, id)).map((m) => m.memberId).sort(), ['theirs', 'third'])
  await refused('not-found', () => showMember(world.ports, theirs, id, 'third'))
  await refused('not-found', () => answerMembership(world.ports, theirs, id, 'third', 'accepted'))
  await refused('denied', () => answerMembership(world.ports, mine, id, 'theirs', 'accepted'))
  await refused('denied', () => addMember(world.ports, theirs, id, 'fourth'))
  await refused('denied', () => deleteMember(world.ports, theirs, id, 'theirs'))
  await refused('invalid-request', () => answerMembership(world.ports, theirs, id, 'theirs', 'maybe'))

  const listed = async (memberStatus?: 'pending' | 'all') =>
    (await listImages(world.ports, theirs, { limit: 1000, names: ['shared one'], ...(memberStatus ? { memberStatus } : {}) }))
      .images.length
  assert.equal(await listed(), 0)
  assert.equal(await listed('pending'), 1)
  await answerMembership(world.ports, theirs, id, 'theirs', 'accepted')
  assert.equal(await listed(), 1)
  await answerMembership(world.ports, theirs, id, 'theirs', 'rejected')
  assert.equal(await listed(), 0)
  assert.equal(await listed('all'), 1)
  await deleteMember(world.ports, mine, id, 'theirs')
  await refused('not-found', () => showImage(world.ports, theirs, id))
})

test('only shared images have members, and a membership sleeps while the image is private', async () => {
  const { id } = await world.create(mine)
  await addMember(world.ports, mine, id, 'theirs')
  await patchImage(world.ports, mine, id, [{ op: 'replace', name: 'visibility', value: 'private' }])
  await refused('not-found', () => showImage(world.ports, theirs, id))
  await refused('denied', () => addMember(world.ports, mine, id, 'third'))
  await refused('denied', () => listMembers(world.ports, mine, id))
  await refused('not-found', () => showMember(world.ports, mine, id, 'theirs'))
})

test('an image has at most 128 members', async () => {
  const { id } = await world.create(mine)
  for (let i = 0; i < 128; i += 1) await addMember(world.ports, mine, id, `m${i}`)
  await refused('too-large', () => addMember(world.ports, mine, id, 'one more'))
})

// ---------------------------------------------------------------- quotas, audit, protections

test('of forty that create at once, no more succeed than the quota has room for', async () => {
  const caller = someone('crowded')
  world.limits.set('crowded', { image_count_total: 7 })
  const done = await Promise.allSettled(Array.from({ length: 40 }, () => world.create(caller)))
  assert.equal(done.filter(({ status }) => status === 'fulfilled').length, 7)
  for (const result of done)
    if (result.status === 'rejected') assert.equal((result.reason as { code: string }).code, 'over-quota')
  const [first] = (await listImages(world.ports, caller, { limit: 1 })).images
  await deleteImage(world.ports, caller, first!.id)
  await world.create(caller)
  await refused('over-quota', () => world.create(caller))
})

test('public images take nothing from the count of a project, until they are public no more', async () => {
  const root = { ...admin, projectId: 'publishers' }
  world.limits.set('publishers', { image_count_total: 1 })
  const [first, second] = [await world.create(root, { visibility: 'public' }), await world.create(root, { visibility: 'public' })]
  await patchImage(world.ports, root, first.id, [{ op: 'replace', name: 'visibility', value: 'private' }])
  const onceMore = [{ op: 'replace', name: 'visibility', value: 'private' }] as const
  await refused('over-quota', () => patchImage(world.ports, root, second.id, onceMore))
  await refused('over-quota', () => world.create(root))
})

test('everything that is done to an image is in the audit record, newest first', async () => {
  const { id } = await world.create(mine)
  await patchImage(world.ports, mine, id, [{ op: 'add', name: 'a', value: 'b' }])
  await addMember(world.ports, mine, id, 'theirs')
  await deleteImage(world.ports, admin, id)
  const entries = await listAudit(world.ports.catalog, { imageId: id }, { limit: 10 })
  assert.deepEqual(entries.map(({ record }) => record.action).sort(), ['add-member', 'create', 'delete', 'update'])
  const deletion = entries.find(({ record }) => record.action === 'delete')?.record
  assert.deepEqual([deletion?.userId, deletion?.projectId, deletion?.actingProjectId], ['user-of-root', 'mine', 'root'])
})

test('protected properties are made, changed, read and deleted only by whom the rules let', async () => {
  const everyone = { create: ['@'], read: ['@'], update: ['@'], delete: ['@'] }
  const rules = [
    { property: 'x_*', create: ['admin'], read: ['admin'], update: ['admin'], delete: ['!'] },
    { property: '*', ...everyone },
  ]
  const guarded = await imageWorld({ protections: parseProtections(JSON.stringify({ rules })) })
  try {
    await refused('denied', () => guarded.create(mine, { x_a: '1' }))
    const { id } = await guarded.create(admin, { x_a: '1', plain: '2', owner: 'mine' })
    await refused('denied', () => patchImage(guarded.ports, mine, id, [{ op: 'add', name: 'x_b', value: '1' }]))
    await refused('conflict', () => patchImage(guarded.ports, mine, id, [{ op: 'replace', name: 'x_a', value: '1' }]))
    await refused('denied', () => patchImage(guarded.ports, admin, id, [{ op: 'remove', name: 'x_a' }]))
    await patchImage(guarded.ports, admin, id, [{ op: 'replace', name: 'x_a', value: '3' }])
    const found = await listImages(guarded.ports, mine, { limit: 10, properties: { x_a: '3' } })
    assert.deepEqual(found.images, [], 'a filter does not tell what may not be read')
    assert.equal((await listImages(guarded.ports, admin, { limit: 10, properties: { x_a: '3' } })).images.length, 1)
  } finally {
    await guarded.close()
  }
})

test('adding a property that is there, and is not shown, is a change of it; the refusal does not tell that it is there', async () => {
  const open = { create: ['@'], delete: ['@'] }
  const rules = [
    { property: 'blind', ...open, read: ['admin'], update: ['admin'] },
    { property: 'drop', ...open, read: ['admin'], update: ['@'] },
    { property: 'sealed', ...open, read: ['admin'], create: ['admin'], update: ['admin'] },
  ]
  const guarded = await imageWorld({ protections: parseProtections(JSON.stringify({ rules })) })
  try {
    const add = (id: string, name: string) => patchImage(guarded.ports, mine, id, [{ op: 'add', name, value: 'theirs' }])
    const with3 = await guarded.create(admin, { owner: 'mine', blind: '1', drop: '1', sealed: '1' })
    const without = await guarded.create(admin, { owner: 'mine' })
    await refused('denied', () => add(with3.id, 'blind'))
    await add(without.id, 'blind')
    await add(with3.id, 'drop')
    const said = async (id: string) => add(id, 'sealed').catch((error: unknown) => String(error))
    assert.match(String(await said(without.id)), /you may not create it/)
    assert.equal(await said(with3.id), await said(without.id))
    const { properties } = await showImage(guarded.ports, admin, with3.id)
    assert.deepEqual(properties, { blind: '1', drop: 'theirs', sealed: '1' })
  } finally {
    await guarded.close()
  }
})

test('newImageFrom answers or refuses any members, and never crashes', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string({ maxLength: 20 }), fc.jsonValue()), (members) => {
      try {
        newImageFrom(members)
      } catch (error) {
        assert.ok(isServiceError(error), `leaked ${error}`)
      }
    }),
  )
})
