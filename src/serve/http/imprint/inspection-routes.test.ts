import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { withVolume } from '../../../../test/filesystems/guest-tree.ts'
import { missingTool } from '../../../../test/peers/command.ts'
import { HttpClient } from '../../../cli/client/http-client.ts'
import { IdentityClient } from '../../../cli/client/identity-client.ts'
import { ADMIN_PASSWORD, type RealService, startService } from '../../../cli/real-service.suite.ts'

const skip = missingTool('mke2fs')
let service: RealService
let headers: Record<string, string>
before(async () => {
  service = await startService()
  const http = new HttpClient(service.url)
  const { token } = await new IdentityClient(http).authenticate(
    { kind: 'password', user: 'admin', password: ADMIN_PASSWORD },
    'admin',
  )
  http.close()
  headers = { 'x-auth-token': token }
})
after(() => service.close())

// biome-ignore lint/suspicious/noExplicitAny: a test looks into what a program would read
async function answerOf(path: string): Promise<{ status: number; body: any }> {
  const answer = await fetch(`${service.url}${path}`, { headers })
  return { status: answer.status, body: await answer.json() }
}

test('what an image holds is told over HTTP, its packages by pages', { skip }, async () => {
  const status = Array.from(
    { length: 5 },
    (_, index) => `Package: p${index}\nStatus: install ok installed\nVersion: 1.${index}\n`,
  ).join('\n')
  const files = {
    'etc/os-release': 'ID=debian\nPRETTY_NAME="<script>alert(1)</script>"\n',
    'etc/passwd': 'root::0:0:root:/root:/bin/sh\n',
    'etc/apt/sources.list': 'deb http://deb.example/ a b\n',
    'var/lib/dpkg/status': status,
  }
  const disk = await withVolume(files, (volume) => volume.read(0, volume.size))
  const json = { ...headers, 'content-type': 'application/json' }
  const members = JSON.stringify({ name: 'machine', disk_format: 'raw', container_format: 'bare' })
  const made = await fetch(`${service.url}/image/v2/images`, { method: 'POST', headers: json, body: members })
  const { id } = (await made.json()) as { readonly id: string }
  assert.equal((await answerOf(`/v1/images/${id}/inspection`)).status, 409)
  const bytes = { ...headers, 'content-type': 'application/octet-stream' }
  const put = await fetch(`${service.url}/image/v2/images/${id}/file`, {
    method: 'PUT',
    headers: bytes,
    body: new Uint8Array(disk),
  })
  assert.equal(put.status, 204)

  const { status: code, body } = await answerOf(`/v1/images/${id}/inspection`)
  assert.equal(code, 200, JSON.stringify(body))
  const [system] = body.systems
  assert.deepEqual(
    [system.os.name, system.software, system.accounts[0].password],
    ['<script>alert(1)</script>', { packages: 5, failures: [] }, 'empty'],
  )
  assert.equal(body.volumes[0].type, 'ext4')
  assert.equal(body.table, null)
  assert.match(body.inspectedAt, /^\d{4}-/)
  const first = (await answerOf(`/v1/images/${id}/packages?limit=3`)).body
  assert.deepEqual([first.packages.length, first.total, first.next, first.complete], [3, 5, 3, true])
  const second = (await answerOf(`/v1/images/${id}/packages?limit=3&after=${first.next}`)).body
  assert.deepEqual([second.packages.map(({ name }: { name: string }) => name), second.next], [['p3', 'p4'], null])
  assert.equal((await answerOf('/v1/images/00000000-0000-4000-8000-000000000000/inspection')).status, 404)
})
