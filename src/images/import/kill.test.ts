import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { smallZip } from '../../disk/containers/archives/small-archives.suite.ts'
import { wrapDisk } from '../../disk/formats/index.ts'
import { hostileServer, ok, reply } from './hostile-server.suite.ts'
import { importService, importStores } from './import-service.suite.ts'

const disk = Buffer.concat([randomBytes(300_032), Buffer.alloc(131_072)])
const source = {
  size: disk.length,
  read: async (offset: number, length: number) => disk.subarray(offset, offset + length),
  async *extents(offset: number, length: number) {
    yield { offset, length, kind: 'data' as const }
  },
  close: async () => {},
}
const child = join(import.meta.dirname, 'kill-child.suite.ts')

/** Runs the child, which is killed at the failpoint. @returns the id of the image whose import was accepted, if it was */
async function killedAt(
  t: TestContext,
  folder: string,
  failpoint: string,
  method: string,
  url: string,
): Promise<string | undefined> {
  const running = spawn(process.execPath, [child, folder, url, 'qcow2', method], {
    env: { ...process.env, IMPRINT_FAILPOINT: failpoint },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(() => running.kill('SIGKILL'))
  const [printed, signal] = await Promise.all([
    text(running.stdout),
    new Promise((resolve) => running.once('exit', (_, signal) => resolve(signal))),
  ])
  assert.equal(signal, 'SIGKILL', `the import never came by ${failpoint}`)
  return /^accepted (\S+)$/m.exec(printed)?.[1]
}

const kills: readonly (readonly [failpoint: string, method: string, packed?: 'zip'])[] = [
  ['import:started', 'web-download'],
  ['manifest:committed', 'web-download'],
  ['import:ingested', 'web-download'],
  ['import:active', 'web-download'],
  ['import:ingested', 'glance-direct'],
  ['import:unpacked', 'web-download', 'zip'],
  ['import:ingested', 'glance-direct', 'zip'],
  ['import:active', 'web-download', 'zip'],
]
for (const [failpoint, method, packed] of kills) {
  test(`an import by ${method}${packed ? ` of a ${packed}` : ''} that is killed at ${failpoint} is finished by the next start, and nothing leaks`, async (t) => {
    const wrapped = await wrapDisk('qcow2', source)
    const body = Buffer.from(await wrapped.read(0, wrapped.size))
    const file = packed ? smallZip([{ name: 'disk.qcow2', body }], { method: 8 }) : body
    const server = await hostileServer((socket) => reply(socket, ok(file), file))
    const folder = mkdtempSync(join(tmpdir(), 'imprint-import-'))
    t.after(async () => {
      await server.close()
      rmSync(folder, { recursive: true, force: true })
    })
    const id = await killedAt(t, folder, failpoint, method, `http://127.0.0.1:${server.port}/disk.qcow2`)
    assert.ok(id, 'the import was accepted before the kill')

    const stores = await importStores(folder)
    const service = await importService(stores, { ports: [server.port] })
    await service.ports().jobs.idle()
    const image = await service.show(id)
    assert.deepEqual([image.status, image.diskFormat, image.size], ['active', 'raw', disk.length], String(image.notes.failure))
    assert.ok(disk.equals(await service.bytesOf(id)))
    assert.equal((await service.collected()).manifests, 1)
    for await (const fault of stores.chunks.check(async function* () {
      if (image.manifest) yield image.manifest
    })) {
      assert.fail(fault.message)
    }
    await service.close()
    await stores.close()
  })
}
