/**
 * A process to be killed: `node kill-child.suite.ts FOLDER URL FORMAT METHOD`. Imports one image into the stores in FOLDER, by
 * web-download from URL, or by staging what is there and glance-direct. Prints `accepted ID` once the import was accepted.
 */
import { buffer } from 'node:stream/consumers'
import { stage } from '../stage.ts'
import { createDialer } from './dialer.ts'
import { fetchFile } from './fetch-file.ts'
import { importService, importStores } from './import-service.suite.ts'

const [folder = '', url = '', diskFormat = '', method = ''] = process.argv.slice(2)
const port = Number(new URL(url).port)
const service = await importService(await importStores(folder), { ports: [port] })
const id = await service.image({ diskFormat })
if (method === 'glance-direct') {
  const dialer = createDialer({ allowedHosts: [], allowedNetworks: ['127.0.0.1'], allowedPorts: [port] })
  const file = await buffer(fetchFile(dialer, url, { maxBytes: 2 ** 26 }))
  await stage(service.ports(), service.caller, id, {
    bytes: [file] as unknown as AsyncIterable<Uint8Array>,
    declaredBytes: file.length,
  })
}
await service.begin(id, method === 'glance-direct' ? { name: method } : { name: method, uri: url })
console.log(`accepted ${id}`)
await service.ports().jobs.idle()
process.exit(0)
