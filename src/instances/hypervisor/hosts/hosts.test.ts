import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ServiceError } from '../../../base/errors.ts'
import { absentHypervisor } from '../absent/absent-hypervisor.ts'
import { plainSpec } from '../hypervisor.suite.ts'
import { MemoryHypervisor } from '../memory/memory-hypervisor.ts'
import { Hosts } from './hosts.ts'

const away = () => absentHypervisor(new ServiceError('unavailable', 'The host is away.'))

test('a machine is asked for where it is, and all hosts tell of theirs', async () => {
  const [own, other] = [new MemoryHypervisor(), new MemoryHypervisor()]
  const [here, there] = [plainSpec(), plainSpec()]
  const placeOf = async (id: string) => (id === there.id ? 'other' : null)
  const hosts = new Hosts({
    hosts: [
      { name: 'own', machines: own },
      { name: 'other', machines: other },
    ],
    placeOf,
  })
  const told: string[] = []
  hosts.watch(({ id }) => told.push(id))
  await hosts.launch(here)
  await hosts.launch(there)
  assert.equal((await own.list()).length, 1)
  assert.equal((await other.show(there.id)).power, 'running')
  assert.deepEqual(
    (await hosts.list()).map(({ id }) => id),
    [here.id, there.id],
  )
  await hosts.stop(there.id, 0)
  await hosts.remove(there.id)
  assert.deepEqual(told.slice(0, 3), [here.id, there.id, there.id])
  assert.deepEqual(await other.list(), [])
  await hosts.close()
})

test('a host that is away answers for its machines only', async () => {
  const other = new MemoryHypervisor()
  const [lost, kept, gone] = [plainSpec(), plainSpec(), plainSpec()]
  const places: Readonly<Record<string, string>> = { [kept.id]: 'other', [gone.id]: 'forgotten' }
  const hosts = new Hosts({
    hosts: [
      { name: 'own', machines: away() },
      { name: 'other', machines: other },
    ],
    placeOf: async (id) => places[id] ?? null,
  })
  await hosts.launch(kept)
  assert.equal(hosts.abilities.version, '1')
  assert.equal(hosts.type, 'memory')
  assert.equal((await hosts.list()).length, 1)
  await assert.rejects(hosts.show(lost.id), { code: 'unavailable', message: /away/ })
  await assert.rejects(hosts.remove(gone.id), { code: 'unavailable', message: /"forgotten"/ })
  await hosts.close()
})

test('without any host nothing can be started, nor listed', async () => {
  const hosts = new Hosts({ hosts: [{ name: 'own', machines: away() }], placeOf: async () => null })
  assert.throws(() => hosts.abilities, { code: 'unavailable' })
  await assert.rejects(hosts.list(), { code: 'unavailable' })
})
