import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import type { FoundMachine, Hypervisor, MachineSpec, PowerState } from './hypervisor.ts'

/** One host, with what a test must be able to do to the machines on it. */
export interface TestHost {
  /** On this host each time: what an earlier one left, it finds. */
  open(): Promise<Hypervisor>
  /** A machine whose guest prints `ready` when it is up, obeys the power button, and answers what is typed. */
  spec(changes?: Partial<MachineSpec>): MachineSpec
  /** The guest turns its machine off, as it would for a user of it. */
  powerOff(hypervisor: Hypervisor, id: string): Promise<void>
  /** Ends the machine's process from outside. */
  kill(id: string): Promise<void>
  /** A guest that does not hear the power button: it does nothing at all. */
  deafSpec(): MachineSpec
  close(): Promise<void>
}

/** What a test changes where it matters. */
export const plainSpec = (): MachineSpec => ({
  id: randomUUID(),
  name: 'a machine',
  cpus: 1,
  memoryBytes: 128 * 2 ** 20,
  hardware: {
    architecture: 'x86_64',
    machineType: null,
    firmware: 'bios',
    secureBoot: false,
    diskBus: 'virtio',
    networkModel: 'virtio',
    cpuModel: null,
    qemuGuestAgent: false,
    randomness: true,
  },
  disks: [{ name: 'root', bytes: 2 ** 30, serial: '' }],
  networks: [],
})

const GRACE_MS = 120_000 // a guest under emulation on a busy host
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1')
const portTaken = 40_000
const LOOK_AGAIN_MS = 20

/** Settles when `holds` does of the machine: looks at each change of power, not at a clock. */
export async function until(hypervisor: Hypervisor, id: string, power: PowerState): Promise<FoundMachine> {
  const seen = Promise.withResolvers<FoundMachine>()
  const stop = hypervisor.watch((machine) => {
    if (machine.id === id && machine.power === power) seen.resolve(machine)
  })
  try {
    const now = await hypervisor.show(id)
    return now.power === power ? now : await seen.promise
  } finally {
    stop()
  }
}

/** Settles when the console has `words` `times`, over all starts of the machine. */
export async function untilPrinted(hypervisor: Hypervisor, id: string, words: string, times = 1): Promise<void> {
  for (;;) {
    const { power, reason } = await hypervisor.show(id)
    const known = text(await hypervisor.consoleLog(id, 1024 * 1024))
    if (known.split(words).length > times) return
    assert.equal(power, 'running', `it went off (${reason}) without "${words}" ${times} times:\n${known.slice(-2000)}`)
    await pause(LOOK_AGAIN_MS)
  }
}

/**
 * What every Hypervisor must do: the port's meaning, in a form that runs.
 * @param host a fresh one without machines
 * @param options.skip why none of it can run here
 */
export function hypervisorSuite(
  adapter: string,
  host: () => Promise<TestHost>,
  options: { readonly skip?: string | false } = {},
) {
  const must = (title: string, check: (on: TestHost, hypervisor: Hypervisor, context: TestContext) => Promise<void>) =>
    test(`${adapter} must ${title}`, { skip: options.skip ?? false }, async (context) => {
      const on = await host()
      const hypervisor = await on.open()
      context.after(async () => {
        await hypervisor.close() // a machine's process may be watched by one only
        await on.close()
      })
      await check(on, hypervisor, context)
    })
  const powers = async (hypervisor: Hypervisor) =>
    Object.fromEntries((await hypervisor.list()).map(({ id, power }) => [id, power]))

  must('say what it can do', async (on, hypervisor) => {
    const { abilities } = hypervisor
    assert.ok(hypervisor.type.length > 0 && abilities.version.length > 0)
    assert.ok(abilities.architectures.includes(on.spec().hardware.architecture))
    assert.ok(abilities.accelerators.length > 0 && abilities.firmwares.includes('bios'))
    assert.ok(abilities.cpus >= 1 && abilities.maxCpus >= 1 && abilities.memoryBytes > 0)
  })

  must('run what was launched, and show it', async (on, hypervisor) => {
    const spec = on.spec()
    await hypervisor.launch(spec)
    const { diskBytes, ...shown } = await hypervisor.show(spec.id)
    assert.deepEqual(shown, { id: spec.id, power: 'running', reason: null, disks: spec.disks.map(({ name }) => name) })
    assert.ok(diskBytes >= 0)
    assert.deepEqual(await powers(hypervisor), { [spec.id]: 'running' })
    await untilPrinted(hypervisor, spec.id, 'ready')
  })

  must('refuse an id that is taken, and leave its machine alone', async (on, hypervisor) => {
    const spec = on.spec()
    const both = await Promise.allSettled([hypervisor.launch(spec), hypervisor.launch(spec)])
    assert.deepEqual(both.map((each) => each.status).sort(), ['fulfilled', 'rejected'])
    const refused = both.find((each) => each.status === 'rejected')
    assert.equal(refused?.reason.code, 'conflict')
    await assert.rejects(hypervisor.launch(spec), { code: 'conflict' })
    assert.equal((await hypervisor.show(spec.id)).power, 'running')
  })

  const aCard = { mac: '52:54:00:00:00:01', forwards: [] }
  const impossible: readonly (readonly [string, (on: TestHost) => Partial<MachineSpec>])[] = [
    ['an id that is none', () => ({ id: '../x' })],
    ['no processor', () => ({ cpus: 0 })],
    ['a million processors', () => ({ cpus: 1_000_000 })],
    ['a part of a byte', () => ({ memoryBytes: 64 * 1024 * 1024 + 0.5 })],
    ['an architecture of another age', (on) => ({ hardware: { ...on.spec().hardware, architecture: 'pdp11' } })],
    ['secure boot without UEFI', (on) => ({ hardware: { ...on.spec().hardware, secureBoot: true } })],
    ['a disk whose name is a path', () => ({ disks: [{ name: '../root', bytes: 512, serial: '' }] })],
    ['half a sector', () => ({ disks: [{ name: 'root', bytes: 700, serial: '' }] })],
    ['two disks of one name', () => ({ disks: [1, 2].map(() => ({ name: 'root', bytes: 512, serial: '' })) })],
    ['a serial number that is a command', () => ({ disks: [{ name: 'root', bytes: 512, serial: 'a\nb' }] })],
    [
      'a socket beside the point',
      () => ({ disks: [{ name: 'root', bytes: 512, serial: '', base: { socketPath: 'x', exportName: '' } }] }),
    ],
    ['a bridge whose name would be read as more', () => ({ networks: [{ ...aCard, bridge: 'br0 up\nlink delete eth0' }] })],
    ['a bridge whose name would be read as an option', () => ({ networks: [{ ...aCard, bridge: '-force' }] })],
    ['a card that is isolated in a bridge', () => ({ networks: [{ ...aCard, bridge: 'br0', isIsolated: true }] })],
    ['a card with a group address', () => ({ networks: [{ mac: '53:54:00:00:00:01', forwards: [] }] })],
    [
      'a host address with an option in it',
      () => ({
        networks: [
          {
            mac: '52:54:00:00:00:01',
            forwards: [{ protocol: 'tcp', hostAddress: '127.0.0.1,id=x', hostPort: portTaken, guestPort: 22 }],
          },
        ],
      }),
    ],
    ['a name that is no text', () => ({ name: '\ud800' })],
    ['a name with an end in it', () => ({ name: 'a\0b' })],
    ['a name too long', () => ({ name: 'x'.repeat(256) })],
  ]
  must('refuse what cannot be, and leave nothing', async (on, hypervisor) => {
    for (const [what, changes] of impossible) {
      await assert.rejects(hypervisor.launch(on.spec(changes(on))), { code: 'invalid-request' }, what)
    }
    assert.deepEqual(await hypervisor.list(), [])
  })

  must('leave nothing of a launch that was cut short', async (on, hypervisor) => {
    const spec = on.spec()
    await assert.rejects(hypervisor.launch(spec, AbortSignal.abort()), { code: 'cancelled' })
    const cut = new AbortController()
    const launch = hypervisor.launch(spec, cut.signal)
    cut.abort()
    await assert.rejects(launch, { code: 'cancelled' })
    assert.deepEqual(await hypervisor.list(), [])
    await hypervisor.launch(spec)
    assert.equal((await hypervisor.show(spec.id)).power, 'running')
  })

  must('cut a launch short to remove its machine', async (on, hypervisor) => {
    const spec = on.spec()
    const [launch] = await Promise.allSettled([hypervisor.launch(spec), hypervisor.remove(spec.id)])
    if (launch.status === 'rejected') assert.equal(launch.reason.code, 'cancelled')
    assert.deepEqual(await hypervisor.list(), [])
    await hypervisor.launch(spec)
  })

  must('say not-found of machines that are not there', async (on, hypervisor) => {
    for (const id of [on.spec().id, randomUUID(), '', '..']) {
      await assert.rejects(hypervisor.show(id), { code: 'not-found' })
      await assert.rejects(hypervisor.start(id, {}), { code: 'not-found' })
      await assert.rejects(hypervisor.stop(id, 0), { code: 'not-found' })
      await assert.rejects(hypervisor.reboot(id, 0), { code: 'not-found' })
      await assert.rejects(hypervisor.pause(id), { code: 'not-found' })
      await assert.rejects(hypervisor.resume(id), { code: 'not-found' })
      await assert.rejects(hypervisor.consoleLog(id, 1), { code: 'not-found' })
      await assert.rejects(hypervisor.serial(id), { code: 'not-found' })
      await hypervisor.remove(id)
    }
  })

  must('take any name', async (on, hypervisor) => {
    const names = ['a,b=c', `'"\\$(reboot)`, 'two\nlines\t%s', '🐧'.repeat(255), '-S', '']
    for (const name of names) {
      const spec = on.spec({ name })
      await hypervisor.launch(spec)
      assert.equal((await hypervisor.show(spec.id)).power, 'running', name)
      await hypervisor.remove(spec.id)
    }
  })

  must('press the power button, and have what the guest wrote kept', async (on, hypervisor) => {
    const { id } = await booted(on, hypervisor)
    await hypervisor.stop(id, GRACE_MS)
    assert.deepEqual(await powers(hypervisor), { [id]: 'shutdown' })
    assert.match(text(await hypervisor.consoleLog(id, 1024 * 1024)), /ready/)
    const tail = text(await hypervisor.consoleLog(id, 5))
    assert.equal(tail.length, 5)
    assert.ok(text(await hypervisor.consoleLog(id, 1024 * 1024)).endsWith(tail))
    await hypervisor.stop(id, GRACE_MS) // it is off: nothing to wait for
    await assert.rejects(hypervisor.serial(id), { code: 'conflict' })
  })

  must('pull the plug of a guest that does not hear the button', async (on, hypervisor) => {
    const spec = on.deafSpec()
    await hypervisor.launch(spec)
    await hypervisor.stop(spec.id, 1)
    assert.equal((await hypervisor.show(spec.id)).power, 'shutdown')
    await hypervisor.start(spec.id, {})
    await hypervisor.stop(spec.id, 0)
    assert.deepEqual(await powers(hypervisor), { [spec.id]: 'shutdown' })
  })

  must('let a second stop be quicker than the first', async (on, hypervisor) => {
    const spec = on.deafSpec()
    await hypervisor.launch(spec)
    const patient = hypervisor.stop(spec.id, GRACE_MS)
    await Promise.all([patient, hypervisor.stop(spec.id, 0)])
    assert.equal((await hypervisor.show(spec.id)).power, 'shutdown')
  })

  must('start again what is off, and only that', async (on, hypervisor) => {
    const { id } = await booted(on, hypervisor)
    await assert.rejects(hypervisor.start(id, {}), { code: 'conflict' })
    await hypervisor.stop(id, 0)
    await hypervisor.start(id, {})
    assert.equal((await hypervisor.show(id)).power, 'running')
    await untilPrinted(hypervisor, id, 'ready', 2) // the log goes on
    await hypervisor.stop(id, 0)
    await assert.rejects(hypervisor.start(id, { addresses: { other: { socketPath: '/x', exportName: '' } } }), {
      code: 'invalid-request',
    })
    assert.equal((await hypervisor.show(id)).power, 'shutdown')
  })

  must('tell of a guest that turns itself off', async (on, hypervisor) => {
    const { id } = await booted(on, hypervisor)
    const told = until(hypervisor, id, 'shutdown')
    await on.powerOff(hypervisor, id)
    assert.equal((await told).reason, null)
    await hypervisor.start(id, {})
    assert.equal((await hypervisor.show(id)).power, 'running')
  })

  must('tell of a crash and why, and start again after it', async (on, hypervisor) => {
    const spec = on.spec()
    await hypervisor.launch(spec)
    const told = until(hypervisor, spec.id, 'crashed')
    await on.kill(spec.id)
    assert.ok((await told).reason)
    assert.ok((await hypervisor.show(spec.id)).reason)
    await assert.rejects(hypervisor.reboot(spec.id, 0), { code: 'conflict' })
    await hypervisor.start(spec.id, {})
    assert.deepEqual((await hypervisor.show(spec.id)).reason, null)
    await on.kill(spec.id)
    await until(hypervisor, spec.id, 'crashed')
    await hypervisor.stop(spec.id, 0)
    const { power, reason } = await hypervisor.show(spec.id)
    assert.deepEqual({ power, reason }, { power: 'shutdown', reason: null })
  })

  must('pause and resume', async (on, hypervisor) => {
    const { id } = await booted(on, hypervisor)
    await assert.rejects(hypervisor.resume(id), { code: 'conflict' })
    await hypervisor.pause(id)
    assert.deepEqual(await powers(hypervisor), { [id]: 'paused' })
    await assert.rejects(hypervisor.pause(id), { code: 'conflict' })
    await assert.rejects(hypervisor.start(id, {}), { code: 'conflict' })
    await hypervisor.resume(id)
    assert.deepEqual(await powers(hypervisor), { [id]: 'running' })
    await answers(hypervisor, id)
    await hypervisor.pause(id)
    await hypervisor.stop(id, GRACE_MS) // it cannot feel the button
    assert.deepEqual(await powers(hypervisor), { [id]: 'shutdown' })
    await assert.rejects(hypervisor.pause(id), { code: 'conflict' })
    await assert.rejects(hypervisor.resume(id), { code: 'conflict' })
  })

  must('turn a guest off and on by its button, without it ever being off', async (on, hypervisor, context) => {
    const { id } = await booted(on, hypervisor)
    const seen: PowerState[] = []
    context.after(hypervisor.watch(({ power }) => seen.push(power)))
    await hypervisor.reboot(id, GRACE_MS)
    await untilPrinted(hypervisor, id, 'ready', 2)
    assert.deepEqual(seen, [])
    await hypervisor.stop(id, GRACE_MS) // the button turns it off as ever
    assert.deepEqual(seen, ['shutdown'])
    await assert.rejects(hypervisor.reboot(id, 0), { code: 'conflict' })
  })

  must('press the reset button', async (on, hypervisor) => {
    const { id } = await booted(on, hypervisor)
    await hypervisor.reboot(id, 0)
    await untilPrinted(hypervisor, id, 'ready', 2)
    await hypervisor.pause(id)
    await hypervisor.reboot(id, GRACE_MS)
    assert.equal((await hypervisor.show(id)).power, 'running')
    await untilPrinted(hypervisor, id, 'ready', 3)
  })

  must('give the serial port to the newest who asks', async (on, hypervisor) => {
    const { id } = await booted(on, hypervisor)
    const first = await hypervisor.serial(id)
    const ended = closed(first)
    await answers(hypervisor, id)
    await ended
    const last = await hypervisor.serial(id)
    const over = closed(last)
    await hypervisor.stop(id, 0)
    await over
  })

  must('leave machines running when it is closed, and find them and what befell them', async (on, hypervisor) => {
    const [running, paused, off, crashed, later] = [on.spec(), on.spec(), on.spec(), on.spec(), on.spec()]
    for (const spec of [running, paused, off, crashed, later]) await hypervisor.launch(spec)
    await untilPrinted(hypervisor, running.id, 'ready')
    await hypervisor.pause(paused.id)
    await hypervisor.stop(off.id, 0)
    await on.kill(crashed.id)
    const { reason } = await until(hypervisor, crashed.id, 'crashed')
    await hypervisor.close()
    await on.kill(later.id)

    const again = await on.open()
    try {
      assert.deepEqual(await powers(again), {
        [running.id]: 'running',
        [paused.id]: 'paused',
        [off.id]: 'shutdown',
        [crashed.id]: 'crashed',
        [later.id]: 'crashed',
      })
      assert.equal((await again.show(crashed.id)).reason, reason)
      assert.ok((await again.show(later.id)).reason)
      assert.match(text(await again.consoleLog(running.id, 1024 * 1024)), /ready/)
      await answers(again, running.id)
      await again.resume(paused.id)
      await again.start(crashed.id, {})
      const told = until(again, running.id, 'crashed')
      await on.kill(running.id)
      await told
    } finally {
      await again.close()
    }
  })

  must('find a guest that turns itself off while nobody looks', async (on, hypervisor) => {
    const { id } = await booted(on, hypervisor)
    await on.powerOff(hypervisor, id)
    await hypervisor.close()
    const again = await on.open()
    try {
      const { reason } = await until(again, id, 'shutdown')
      assert.equal(reason, null)
      await again.start(id, {})
    } finally {
      await again.close()
    }
  })

  must('end what is under way when it is closed', async (on, hypervisor) => {
    const deaf = on.deafSpec()
    await hypervisor.launch(deaf)
    const stop = assert.rejects(hypervisor.stop(deaf.id, GRACE_MS), { code: 'cancelled' })
    const launched = on.spec()
    const launch = assert.rejects(hypervisor.launch(launched), { code: 'cancelled' })
    await hypervisor.close()
    await Promise.all([stop, launch])
    await assert.rejects(hypervisor.list(), { code: 'unavailable' })
    const again = await on.open()
    assert.deepEqual(await powers(again), { [deaf.id]: 'running' })
    await again.close()
  })

  must('forget what was removed, running or not', async (on, hypervisor) => {
    const [running, off] = [on.spec(), on.spec()]
    await hypervisor.launch(running)
    await hypervisor.launch(off)
    await hypervisor.stop(off.id, 0)
    for (const { id } of [running, off]) {
      await hypervisor.remove(id)
      await hypervisor.remove(id)
      await assert.rejects(hypervisor.show(id), { code: 'not-found' })
    }
    assert.deepEqual(await hypervisor.list(), [])
    await hypervisor.launch(running)
    assert.equal((await hypervisor.show(running.id)).power, 'running')
  })

  must('run several at once', async (on, hypervisor) => {
    const specs = Array.from({ length: 4 }, () => on.spec())
    await Promise.all(specs.map((spec) => hypervisor.launch(spec)))
    assert.deepEqual(Object.values(await powers(hypervisor)), ['running', 'running', 'running', 'running'])
    await Promise.all(specs.map((spec) => hypervisor.stop(spec.id, 0)))
    await Promise.all(specs.map((spec) => hypervisor.remove(spec.id)))
    assert.deepEqual(await hypervisor.list(), [])
  })
}

async function booted(on: TestHost, hypervisor: Hypervisor): Promise<MachineSpec> {
  const spec = on.spec()
  await hypervisor.launch(spec)
  await untilPrinted(hypervisor, spec.id, 'ready')
  return spec
}

/** The guest hears what is typed, and is heard. */
async function answers(hypervisor: Hypervisor, id: string): Promise<void> {
  const word = `word-${randomUUID()}`
  const serial = await hypervisor.serial(id)
  try {
    serial.write(`echo ${word}\n`)
    let heard = ''
    for await (const bytes of serial) {
      heard += text(bytes)
      if (heard.includes(word)) return
    }
    throw new Error(`the serial port ended before the answer: ${heard}`)
  } finally {
    serial.destroy()
  }
}

const closed = (serial: Duplex): Promise<void> =>
  new Promise((done) => {
    serial.on('error', () => {})
    serial.once('close', () => done())
    serial.resume()
  })
