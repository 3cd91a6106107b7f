import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { command } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { makeRawImage, serveFiles } from './disk-images.ts'
import { startServiceUnderTest } from './image-service.ts'

const SDK = '/usr/lib/python3/dist-packages/openstack'
const missing = existsSync(SDK) ? false : 'python3-openstacksdk is not installed'

test('openstacksdk walks through images', { skip: missing }, async (t) => {
  const scratch = await scratchFolder('sdk')
  t.after(scratch.stop)
  const raw = await makeRawImage(scratch.path)
  const files = await serveFiles([raw])
  t.after(files.stop)
  const settings = { IMPRINT_IMPORT_HOSTS: '127.0.0.1', IMPRINT_IMPORT_PORTS: String(files.port) }
  const service = await startServiceUnderTest({ settings })
  t.after(service.stop)
  const { user, password, project } = service.cast.admin
  const env = {
    OS_AUTH_URL: service.identityUrl,
    OS_USERNAME: user,
    OS_PASSWORD: password,
    OS_PROJECT_NAME: project,
    OS_USER_DOMAIN_NAME: 'Default',
    OS_PROJECT_DOMAIN_NAME: 'Default',
    OS_REGION_NAME: 'RegionOne',
    HOME: scratch.path,
    PYTHONWARNINGS: 'ignore',
    no_proxy: '127.0.0.1',
  }
  const script = join(import.meta.dirname, 'openstacksdk-walk.py')
  const line = ['/usr/bin/python3', script, raw, service.cast.other.projectId, files.urlOf(raw)] as const
  const { code, stdout, stderr } = await command(line, { env, timeoutMs: 180_000 })
  assert.equal(code, 0, `after: ${stdout}\n${stderr.slice(-3000)}`)
  assert.match(stdout, /walked$/m)
})
