import assert from 'node:assert/strict'
import { test } from 'node:test'
import { rankOf } from '../base/rank.ts'
import { someone } from '../images/image-world.suite.ts'
import {
  authorizeSnapshot,
  authorizeVolume,
  decide,
  isAllowed,
  servicePolicy,
  snapshotPolicy,
  standingOf,
  type Verdict,
  volumePolicy,
} from './policy.ts'
import type { SnapshotRecord, VolumeRecord } from './records.ts'

const roles = ['none', 'reader', 'member', 'admin'] as const
const owners = ['mine', 'theirs'] as const
const volumeStatuses = [
  ...[
    'creating',
    'available',
    'attaching',
    'in-use',
    'detaching',
    'extending',
    'uploading',
    'deleting',
    'error',
    'error_deleting',
  ],
]
const snapshotStatuses = ['creating', 'available', 'deleting', 'error', 'error_deleting']

interface Cell {
  readonly verb: string
  readonly role: (typeof roles)[number]
  readonly owner: (typeof owners)[number]
  readonly status: string
}

/** The rules said again, as a person would tell them, and not as a table. */
function mayTry({ verb, role, owner }: Cell): Verdict | null {
  if (role !== 'admin' && (role === 'none' || owner === 'theirs')) return 'hide'
  if (verb === 'show') return 'allow'
  if (role === 'reader') return 'deny'
  return (verb === 'force-delete' || verb === 'reset-status') && role !== 'admin' ? 'deny' : null
}
function modelOfVolume(cell: Cell): Verdict {
  const verdict = mayTry(cell)
  if (verdict) return verdict
  const { verb, status } = cell
  const allowed: Record<string, boolean> = {
    update: status !== 'deleting',
    'reset-status': status !== 'deleting',
    'force-delete': true,
    delete: ['available', 'error', 'error_deleting'].includes(status),
  }
  const inUseToo = ['snapshot-in-use', 'upload-in-use', 'copy'].includes(verb) && status === 'in-use'
  return (allowed[verb] ?? (status === 'available' || inUseToo)) ? 'allow' : 'conflict'
}
function modelOfSnapshot(cell: Cell): Verdict {
  const verdict = mayTry(cell)
  if (verdict) return verdict
  const { verb, status } = cell
  const isSettled = ['available', 'error', 'error_deleting'].includes(status)
  if (verb === 'use') return status === 'available' ? 'allow' : 'conflict'
  if (verb === 'update') return status === 'deleting' ? 'conflict' : 'allow'
  return isSettled || (verb === 'force-delete' && status === 'deleting') ? 'allow' : 'conflict'
}

for (const [what, policy, statuses, model] of [
  ['volumes', volumePolicy, volumeStatuses, modelOfVolume],
  ['snapshots', snapshotPolicy, snapshotStatuses, modelOfSnapshot],
] as const) {
  test(`the table of ${what} agrees with the rules told one by one, in every cell`, () => {
    for (const [verb, rule] of Object.entries(policy))
      for (const role of roles)
        for (const owner of owners)
          for (const status of statuses) {
            const cell = { verb, role, owner, status }
            const caller = someone('mine', role)
            const verdict = decide<string>(rule, rankOf(caller), standingOf(caller, { projectId: owner }), status)
            assert.equal(verdict, model(cell), JSON.stringify(cell))
          }
  })
}

test('a refusal says what would be needed, and hides what is not the caller’s', () => {
  const volume = { id: 'v', projectId: 'mine', status: 'in-use' } as VolumeRecord
  const refused = (work: () => void, code: string, message: RegExp) => assert.throws(work, { code, message })
  refused(() => authorizeVolume(someone('theirs'), 'show', volume), 'not-found', /^Volume v could not be found\.$/)
  refused(() => authorizeVolume(someone('mine', 'reader'), 'delete', volume), 'denied', /the role "member"/)
  refused(() => authorizeVolume(someone('mine'), 'reset-status', volume), 'denied', /an administrator/)
  refused(
    () => authorizeVolume(someone('mine'), 'delete', volume),
    'conflict',
    /status must be available or error or error_deleting/,
  )
  const snapshot = { id: 's', projectId: 'mine', status: 'creating' } as SnapshotRecord
  refused(() => authorizeSnapshot(someone('theirs'), 'show', snapshot), 'not-found', /^Snapshot s could not be found\.$/)
  refused(() => authorizeSnapshot(someone('mine'), 'use', snapshot), 'conflict', /current status is: creating/)
})

test('what concerns no volume needs a role in a project, and hosts an administrator', () => {
  for (const [verb, least] of Object.entries(servicePolicy)) {
    const able = roles.filter((role) => isAllowed(someone('mine', role), verb as keyof typeof servicePolicy))
    assert.deepEqual(able, roles.slice(roles.indexOf(least)), verb)
  }
})
