import assert from 'node:assert/strict'
import { test } from 'node:test'
import { serviceCaller } from '../base/caller.ts'
import { rankOf } from '../base/rank.ts'
import { someone } from './instance-world.suite.ts'
import {
  authorize,
  decide,
  type InstanceVerb,
  instancePolicy,
  isAllowed,
  servicePolicy,
  standingOf,
  type Verdict,
} from './policy.ts'
import type { InstanceRecord, TaskState, VmState } from './records.ts'

const roles = ['none', 'reader', 'member', 'admin'] as const
const owners = ['mine', 'theirs'] as const
const vmStates: readonly VmState[] = ['building', 'active', 'paused', 'stopped', 'error']
const taskStates: readonly (TaskState | null)[] = [
  null,
  'spawning',
  'powering-off',
  'rebooting',
  'image_uploading',
  'rebuilding',
  'deleting',
]
const verbs = Object.keys(instancePolicy) as InstanceVerb[]

interface Cell {
  readonly verb: InstanceVerb
  readonly role: (typeof roles)[number]
  readonly owner: (typeof owners)[number]
  readonly vmState: VmState
  readonly taskState: TaskState | null
  readonly locked: boolean
  readonly launched: boolean
}

/** The rules said again, one after the other as a person would tell them, and not as a table. */
function model({ verb, role, owner, vmState, taskState, locked, launched }: Cell): Verdict {
  const admin = role === 'admin'
  if (!admin && (role === 'none' || owner === 'theirs')) return 'hide'
  if (verb === 'show') return 'allow'
  if ((verb === 'unlock-for-admin' || verb === 'migrate') && !admin) return 'deny'
  if (role === 'reader') return 'deny'
  const isNote = ['console-log', 'serial-console', 'update', 'tag', 'lock', 'unlock', 'unlock-for-admin'].includes(verb)
  if (isNote) return taskState === 'deleting' ? 'conflict' : 'allow'
  const canBeKept = verb === 'snapshot' // as in Nova, a lock is no reason against it
  if (locked && !admin && !canBeKept) return 'conflict'
  if (verb === 'delete') return 'allow'
  if (verb === 'change-metadata' || verb === 'schedule-backups' || verb === 'cancel-job')
    return taskState === 'deleting' ? 'conflict' : 'allow'
  if (taskState !== null) return 'conflict'
  if (!launched && verb !== 'rebuild') return 'conflict' // from another image it may start
  const takes: Partial<Record<InstanceVerb, string>> = {
    start: 'stopped',
    stop: 'active paused error',
    'soft-reboot': 'active',
    'hard-reboot': 'active paused stopped error',
    pause: 'active',
    unpause: 'paused',
    hydrate: 'active',
    migrate: 'active paused',
    snapshot: 'active paused stopped',
    rebuild: 'active paused stopped error',
    'attach-volume': 'active paused stopped',
    'detach-volume': 'active paused stopped',
  }
  return takes[verb]!.split(' ').includes(vmState) ? 'allow' : 'conflict'
}

function* cells(): Generator<Cell> {
  for (const verb of verbs)
    for (const role of roles)
      for (const owner of owners)
        for (const vmState of vmStates)
          for (const taskState of taskStates)
            for (const locked of [false, true])
              for (const launched of [false, true]) yield { verb, role, owner, vmState, taskState, locked, launched }
}

const recordOf = ({ owner, vmState, taskState, locked, launched }: Cell) =>
  ({
    id: 'i',
    projectId: owner,
    vmState,
    taskState,
    lock: locked ? { by: 'owner', reason: null } : null,
    launchedAt: launched ? 1 : null,
  }) as InstanceRecord

test('the table agrees with the rules told one by one, in every cell', () => {
  let count = 0
  for (const cell of cells()) {
    const caller = someone('mine', cell.role)
    const instance = recordOf(cell)
    assert.equal(decide(cell.verb, rankOf(caller), standingOf(caller, instance), instance), model(cell), JSON.stringify(cell))
    count += 1
  }
  assert.ok(count >= 10_000, `${count} cells`)
})

test('each verdict is thrown as the error that it means, in words that say what stands in the way', () => {
  const says = { allow: null, deny: ['denied', /needs/], hide: ['not-found', /could not be found/] } as const
  for (const cell of cells()) {
    const expected = model(cell)
    let thrown: { code?: unknown; message: string } | null = null
    try {
      authorize(someone('mine', cell.role), cell.verb, recordOf(cell))
    } catch (error) {
      thrown = error as Error
    }
    if (expected !== 'conflict') {
      assert.equal(thrown?.code ?? null, says[expected]?.[0] ?? null, JSON.stringify(cell))
      if (thrown) assert.match(thrown.message, says[expected]![1])
      continue
    }
    assert.equal(thrown?.code, 'conflict', JSON.stringify(cell))
    assert.match(thrown!.message, /is locked|never run|while it is in (task_state|vm_state) [a-z]/)
    assert.doesNotMatch(thrown!.message, /undefined|null|\[object/)
  }
})

test('what is made of a root disk is not done to an instance that starts from a volume', () => {
  const state = { id: 'i', projectId: 'mine', vmState: 'active', taskState: null, lock: null, launchedAt: 1 } as const
  for (const verb of ['snapshot', 'hydrate', 'soft-reboot'] as const) {
    const verdicts = ['image', ''].map((imageId) => decide(verb, 'member', 'owner', { ...state, imageId }))
    assert.deepEqual(verdicts, ['allow', verb === 'hydrate' ? 'conflict' : 'allow'], verb)
  }
  const booted = { ...state, imageId: '' } as InstanceRecord
  assert.throws(() => authorize(someone('mine'), 'hydrate', booted), { message: /starts from a volume/ })
})

test('what concerns no instance takes a role; a token for the whole system has none', () => {
  for (const [verb, least] of Object.entries(servicePolicy) as [keyof typeof servicePolicy, string][]) {
    for (const role of roles) {
      const enough = roles.indexOf(role) >= roles.indexOf(least as 'reader')
      assert.equal(isAllowed(someone('mine', role), verb), enough, `${verb} by ${role}`)
    }
    assert.equal(isAllowed({ ...serviceCaller('r'), systemScope: true }, verb), false)
  }
})
