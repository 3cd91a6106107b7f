/** `imprint run` and what follows it, as a person would type them, with a real guest. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { endMachines } from '../fixtures/guest/end-machines.ts'
import { noTinyGuest, tinyGuest } from '../fixtures/guest/tiny-guest.ts'
import { command } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { startImprint } from './image-service.ts'

const imprint = resolve(import.meta.dirname, '../../bin/imprint')

test('imprint run, ps, console, logs, rm', { skip: noTinyGuest() }, async (t) => {
  const scratch = await scratchFolder('cli')
  t.after(scratch.stop)
  const service = await startImprint({ settings: { IMPRINT_INSTANCE_ACCELERATOR: 'tcg' } })
  t.after(() => endMachines(service.dataFolder)) // before its folder goes with it
  t.after(service.stop)
  const vendor = await vendorOf(await readFile(await tinyGuest()))
  t.after(() => vendor.close())
  const { admin } = service.cast
  const env = {
    HOME: scratch.path,
    OS_AUTH_URL: service.identityUrl,
    OS_USERNAME: admin.user,
    OS_PASSWORD: admin.password,
    OS_PROJECT_NAME: admin.project,
    IMPRINT_VENDOR_IMAGES: `http://127.0.0.1:${(vendor.address() as AddressInfo).port}`,
    NODE_TEST_CONTEXT: undefined,
  }
  const says = async (...words: string[]): Promise<string> => {
    const { code, stdout, stderr } = await command([imprint, ...words], { env, timeoutMs: 300_000 })
    assert.equal(code, 0, `${words.join(' ')}: ${stderr}`)
    return stdout
  }
  const script = join(scratch.path, 'setup.sh')
  await writeFile(script, '#!/bin/sh\necho "tiny login: "\n') // what says so is told by its user, this guest having no getty

  await t.test(
    'a distribution that is not here is brought, verified, run, and waited for until it asks for a login',
    async () => {
      const out = await says('run', 'debian', '--pull', '--name', 'web', '--user-data', script, '--port', '80')
      assert.match(out, /^web \([0-9a-f-]{36}\) runs, after .*: m1\.tiny, 127\.0\.0\.1:\d+→80 127\.0\.0\.1:\d+→22\.$/m)
      const port = /127\.0\.0\.1:(\d+)→80/.exec(await says('ps'))?.[1]
      assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), 'hello from the guest\n')
    },
  )
  await t.test('its console types a command and hears the answer', async () => {
    const child = spawn(imprint, ['console', 'web'], { env: { ...process.env, ...env } as NodeJS.ProcessEnv, stdio: 'pipe' })
    child.stdin.write('echo $((6 * 7))-is-the-answer\n')
    let heard = ''
    for await (const text of child.stdout.setEncoding('utf8')) {
      heard += String(text)
      if (heard.includes('42-is-the-answer')) child.stdin.end()
    }
    assert.match(heard, /42-is-the-answer/)
  })
  await t.test('a flood from the guest passes through its console, and through the service', async () => {
    const child = spawn(imprint, ['console', 'web'], { env: { ...process.env, ...env } as NodeJS.ProcessEnv, stdio: 'pipe' })
    child.stdin.write('for n in $(seq 3000); do echo line-$n-of-many-that-fill-the-port; done; echo the-$((1 + 1))nd-end\n')
    let bytes = 0
    let tail = ''
    for await (const text of child.stdout.setEncoding('utf8')) {
      bytes += String(text).length
      tail = (tail + String(text)).slice(-200)
      if (tail.includes('the-2nd-end')) child.stdin.end()
    }
    assert.ok(bytes > 100_000, `${bytes} bytes were heard`)
    assert.match(await says('logs', 'web', '--lines', '5'), /line-3000-of-many/)
  })
  await t.test('it is stopped, started, told of and deleted', async () => {
    await says('restart', 'web', '--hard')
    await says('stop', 'web')
    assert.match(await says('ps', '--all'), /^web .* off /m)
    assert.match(await says('events', 'web'), /stop +ok[\s\S]*reboot +ok[\s\S]*create +ok/)
    assert.match(await says('rm', 'web'), /^Deleted web/)
    assert.doesNotMatch(await says('ps', '--all'), /web/)
  })
})

/** A folder of Debian's, in which the tiny guest is the newest build. */
async function vendorOf(disk: Buffer) {
  const folder = '/cloud.debian.org/images/cloud/trixie/latest/'
  const file = 'debian-13-genericcloud-amd64.qcow2'
  const sums = `${createHash('sha512').update(disk).digest('hex')}  ${file}\n`
  const server = createServer(({ url }, response) => {
    if (url === folder + file) response.end(disk)
    else if (url === `${folder}SHA512SUMS`) response.end(sums)
    else response.writeHead(404).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}
