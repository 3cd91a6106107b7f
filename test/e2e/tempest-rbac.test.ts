/** The role tests of glance-tempest-plugin; tempest makes its users through the service's own identity API. */
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { missingTool } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { startServiceUnderTest } from './image-service.ts'
import { runTempest } from './tempest.ts'
import { reportTempest } from './tempest-report.ts'

const PLUGIN = '/usr/lib/python3/dist-packages/glance_tempest_plugin'
const missing = missingTool('tempest', 'stestr') || (existsSync(PLUGIN) ? false : 'glance-tempest-plugin is not installed')

test('glance-tempest-plugin, RBAC', { skip: missing }, async (t) => {
  const scratch = await scratchFolder('tempest')
  t.after(scratch.stop)
  const service = await startServiceUnderTest()
  t.after(service.stop)
  const select = 'glance_tempest_plugin\\.tests\\.rbac'
  const results = await runTempest({ folder: scratch.path, service, importUrl: 'http://127.0.0.1:1/none', select })
  await reportTempest(t, results, {})
})
