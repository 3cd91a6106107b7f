/** tempest.api.image, with accounts that were made through the service's own identity API. */
import { test } from 'node:test'
import { missingTool } from '../peers/command.ts'
import { scratchFolder } from '../peers/daemon.ts'
import { makeRawImage, serveFiles } from './disk-images.ts'
import { startServiceUnderTest } from './image-service.ts'
import { runTempest, tempestAccounts } from './tempest.ts'
import { type ExplainedSkips, reportTempest } from './tempest-report.ts'

const oneStore = 'needs a second store to copy to; Imprint has one'
const secondService = 'needs a second image service beside the first, to fetch from'
const explained: ExplainedSkips = {
  'tempest.api.image.v1': 'version 1 of the image API is gone from Glance too',
  ImageLocationsTest: 'Imprint shows no locations: with them a client could make the service read what it should not',
  MultiStoresImportImagesTest: oneStore,
  ImageCachingTest: 'Imprint has no second copy of images to manage: its cache holds verified chunks',
  test_image_glance_download: secondService,
  test_remote_: secondService,
}

test('tempest.api.image', { skip: missingTool('tempest', 'stestr') }, async (t) => {
  const scratch = await scratchFolder('tempest')
  t.after(scratch.stop)
  const raw = await makeRawImage(scratch.path)
  const files = await serveFiles([raw])
  t.after(files.stop)
  const settings = { IMPRINT_IMPORT_HOSTS: '127.0.0.1', IMPRINT_IMPORT_PORTS: `80,443,${files.port}` }
  const service = await startServiceUnderTest({ settings })
  t.after(service.stop)
  const accounts = await tempestAccounts(service)
  const select = 'tempest\\.api\\.image'
  const results = await runTempest({ folder: scratch.path, service, importUrl: files.urlOf(raw), accounts, select })
  await reportTempest(t, results, explained)
})
