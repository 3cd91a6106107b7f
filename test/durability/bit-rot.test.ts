/** Bits that turn over in packs: no wrong byte is served, and the check names the images that are touched, and no other. */
import assert from 'node:assert/strict'
import { randomInt, randomUUID } from 'node:crypto'
import { closeSync, existsSync, openSync, readdirSync, readSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ImageRequests, noise } from './image-requests.ts'
import { adminToken, folderInMemory, removeFolder, startMortal } from './mortal-service.ts'

test('after bits turned over, at rest and under way, no wrong byte is served and the check names what is touched', async () => {
  const folder = await folderInMemory('rot')
  let service = await startMortal(folder)
  try {
    const token = await adminToken(service)
    let images = new ImageRequests(service.address, token)
    const shared = noise(1, 4 * 65536)
    const sent = new Map<string, Buffer>()
    const packsOf = new Map<string, readonly string[]>()
    for (let seed = 2; seed < 9; seed += 1) {
      const known = packFiles(folder)
      const id = randomUUID()
      const bytes = Buffer.concat([...(seed < 4 ? [shared] : []), noise(seed, 300_000)])
      await images.create(id, `disk ${seed}`)
      await images.send(id, bytes)
      sent.set(id, bytes)
      packsOf.set(
        id,
        packFiles(folder).filter((file) => !known.includes(file)),
      )
    }
    await service.stop()
    const [first, , , inTheMiddle, later] = [...sent.keys()]
    for (const id of [first, inTheMiddle]) turnBit(packsOf.get(id!)!)
    service = await startMortal(folder)
    images = new ImageRequests(service.address, token)
    turnBit(packsOf.get(later!)!)

    const touched = new Set<string>()
    for (const [id, bytes] of sent) {
      const got = await images.fetch(id).catch(() => undefined)
      if (got) assert.equal(Buffer.compare(got, bytes), 0, 'what is served is what was sent')
      else touched.add(id)
    }
    for (const id of [first, inTheMiddle, later]) assert.ok(touched.has(id!), 'a damaged image is not served')
    assert.ok(touched.size <= 4, 'one more at most: that which shares a part')
    const { faults } = await images.job('check', { readData: true })
    const named = new Set(faults.flatMap((fault) => fault.images.map(({ id }) => id)))
    assert.deepEqual([...named].sort(), [...touched].sort())
    assert.ok((await fetch(`${service.address}/readyz`)).ok)
  } finally {
    await service.stop()
    await removeFolder(folder)
  }
})

function packFiles(folder: string): readonly string[] {
  const packs = join(folder, 'data/store/packs')
  if (!existsSync(packs)) return []
  return readdirSync(packs, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
}

/** One bit among the chunks of data; the pages, the root and the footer stand behind them. */
function turnBit(packs: readonly string[]): void {
  const [pack] = packs.toSorted((a, b) => statSync(b).size - statSync(a).size)
  const at = randomInt(64, Math.floor(statSync(pack!).size * 0.9))
  const bit = 1 << randomInt(8)
  console.log(`turning over bit ${bit} of byte ${at} of ${statSync(pack!).size}`)
  const file = openSync(pack!, 'r+')
  const byte = Buffer.alloc(1)
  readSync(file, byte, 0, 1, at)
  writeSync(file, Buffer.of(byte[0]! ^ bit), 0, 1, at)
  closeSync(file)
}
