import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { policyPage } from '../../scripts/policy-page.ts'
import { rankOf } from '../base/rank.ts'
import type { ImageMember, ImageRecord, ImageStatus, MemberStatus, Visibility } from '../store/catalog/catalog.ts'
import { someone } from './image-world.suite.ts'
import { authorize, decide, type ImageVerb, imagePolicy, standingOf, type Verdict } from './policy.ts'

const roles = ['none', 'reader', 'member', 'admin'] as const
const visibilities: readonly Visibility[] = ['public', 'private', 'shared', 'community']
const memberships: readonly (MemberStatus | null)[] = [null, 'pending', 'accepted', 'rejected']
const owners = ['mine', 'theirs', null] as const
const statuses: readonly ImageStatus[] = [
  'queued',
  'saving',
  'uploading',
  'importing',
  'active',
  'deactivated',
  'killed',
  'deleted',
]
const verbs = Object.keys(imagePolicy) as ImageVerb[]

interface Cell {
  readonly verb: ImageVerb
  readonly role: (typeof roles)[number]
  readonly visibility: Visibility
  readonly owner: 'mine' | 'theirs' | null
  readonly membership: MemberStatus | null
  readonly status: ImageStatus
}

/** The rules said again, one after the other as a person would tell them, and not as a table. */
function model({ verb, role, visibility, owner, membership, status }: Cell): Verdict {
  if (status === 'deleted') return 'hide'
  const admin = role === 'admin'
  const mine = owner === 'mine'
  const shared = !mine && visibility === 'shared' && membership !== null
  const open = visibility === 'public' || visibility === 'community'
  if (!admin && (role === 'none' || !(mine || shared || open))) return 'hide'
  const writer = admin || (mine && role === 'member')

  const wrongState: Partial<Record<ImageVerb, boolean>> = {
    upload: status !== 'queued',
    stage: status !== 'queued',
    'import-staged': status !== 'uploading',
    'import-download': status !== 'queued',
    'import-copy': status !== 'active',
    'delete-from-store': status !== 'active',
  }
  switch (verb) {
    case 'show':
      return 'allow'
    case 'download':
      if (admin) return 'allow'
      return role === 'member' && status !== 'deactivated' ? 'allow' : 'deny'
    case 'update':
    case 'tag':
    case 'communitize':
    case 'delete':
      return writer ? 'allow' : 'deny'
    case 'publicize':
    case 'change-owner':
      return admin ? 'allow' : 'deny'
    case 'upload':
    case 'stage':
      if (!writer) return 'deny'
      return wrongState[verb] ? 'conflict' : 'allow'
    case 'import-staged':
    case 'import-download':
      if (wrongState[verb]) return 'conflict'
      return writer ? 'allow' : 'deny'
    case 'import-copy':
      if (wrongState[verb]) return 'conflict'
      return admin ? 'allow' : 'deny'
    case 'delete-from-store':
      if (!admin) return 'deny'
      return wrongState[verb] ? 'conflict' : 'allow'
    case 'deactivate':
    case 'reactivate':
      return writer && (status === 'active' || status === 'deactivated') ? 'allow' : 'deny'
    case 'add-member':
    case 'delete-member':
      return visibility === 'shared' && writer ? 'allow' : 'deny'
    case 'list-members':
      return visibility === 'shared' && (admin || mine || shared) ? 'allow' : 'deny'
    case 'answer-membership':
      return visibility === 'shared' && (admin || (shared && role === 'member')) ? 'allow' : 'deny'
  }
}

function* cells(): Generator<Cell> {
  for (const verb of verbs)
    for (const role of roles)
      for (const visibility of visibilities)
        for (const owner of owners)
          for (const membership of memberships)
            for (const status of statuses) yield { verb, role, visibility, owner, membership, status }
}

test('the table agrees with the rules told one by one, in every cell', () => {
  let count = 0
  for (const cell of cells()) {
    const caller = someone('mine', cell.role)
    const image = { owner: cell.owner, visibility: cell.visibility, status: cell.status }
    const membership = cell.membership === null ? undefined : { memberId: 'mine' }
    const verdict = decide(cell.verb, rankOf(caller), standingOf(caller, image, membership), image)
    assert.equal(verdict, model(cell), JSON.stringify(cell))
    count += 1
  }
  assert.ok(count >= 5000, `${count} cells`)
})

test('a membership of another project opens nothing', () => {
  const membership = { memberId: 'another' }
  assert.equal(standingOf({ projectId: 'mine' }, { owner: 'theirs', visibility: 'shared' }, membership), 'stranger')
})

test('a token of no project does not own what nobody owns', () => {
  assert.equal(standingOf({ projectId: null }, { owner: null, visibility: 'private' }, undefined), 'stranger')
})

test('each verdict is thrown as the error that it means, and what is hidden in the words for what is not there', () => {
  const image = { id: 'i', owner: 'mine', visibility: 'shared', status: 'active' } as ImageRecord
  const member: ImageMember = { imageId: 'i', memberId: 'x', status: 'pending', createdAt: 0, updatedAt: 0 }
  authorize(someone('mine'), 'update', image)
  assert.throws(() => authorize(someone('x'), 'update', image, member), { code: 'denied', message: /needs the role "member"/ })
  assert.throws(() => authorize(someone('mine'), 'upload', image), { code: 'conflict', message: /is active.*queued/ })
  assert.throws(() => authorize(someone('y'), 'update', image), { code: 'not-found', message: /there is no image/ })
  for (const cell of cells()) {
    const membership = cell.membership === null ? undefined : { ...member, memberId: 'mine' }
    const target = { ...image, owner: cell.owner, visibility: cell.visibility, status: cell.status }
    const expected = { allow: undefined, deny: 'denied', conflict: 'conflict', hide: 'not-found' }[model(cell)]
    let code: unknown
    try {
      authorize(someone('mine', cell.role), cell.verb, target, membership)
    } catch (error) {
      code = (error as { code?: unknown }).code
      assert.doesNotMatch((error as Error).message, /undefined|\[object/)
    }
    assert.equal(code, expected, JSON.stringify(cell))
  }
})

test('docs/policy.md is the table', () => {
  const page = readFileSync(new URL('../../docs/policy.md', import.meta.url), 'utf8')
  assert.equal(page, policyPage(), 'run: node scripts/policy-page.ts')
})
