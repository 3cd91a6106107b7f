/**
 * How long until the first byte of a download that is converted: `GET …/file?format=…`, in every form of every format. The first time the
 * layout is planned; after that it is known for a while. Compressed forms, which are made from front to back, are asked once.
 *
 *   node bench/first-byte.ts [disk.raw] [rounds]
 *
 * Without a disk, one of 2 GiB with 768 MiB of data is made.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { memorySource } from '../src/disk/block/memory-source.ts'
import { formats } from '../src/disk/formats/index.ts'
import { startImprint } from '../test/e2e/image-service.ts'
import { patterned, writeSource } from '../test/fixtures/disk/disks.ts'
import { measured } from './glance/bench-case.ts'
import { createImage, putFile } from './glance/image-client.ts'

const MiB = 2 ** 20
const MUST_MS = 50
const [given, rounds = '5'] = process.argv.slice(2)
const folder = await mkdtemp(join(tmpdir(), 'imprint-first-byte-'))
const service = await startImprint()
try {
  const target = { imageUrl: service.imageUrl, token: service.cast.member.token }
  const disk = given ?? (await madeDisk())
  console.log(`form                      first, ms   again, ms   (medians of ${rounds}; at most ${MUST_MS})`)
  const images = await Promise.all(
    Array.from({ length: Number(rounds) }, async () => {
      const image = await createImage(target)
      await putFile(target, image, disk)
      return image
    }),
  )
  for (const { name, writers } of formats) {
    for (const writer of writers) {
      const { subformat } = writer
      const [first, again]: [number[], number[]] = [[], []]
      for (const image of 'wrap' in writer ? images : images.slice(0, 1)) {
        const url = `${service.imageUrl}/v2/images/${image}/file?format=${name}&subformat=${subformat}`
        first.push(await firstByteMs(url, target.token))
        again.push(await firstByteMs(url, target.token))
      }
      const ms = (all: readonly number[]) => measured(all).median.toFixed(1).padStart(11)
      console.log(`${`${name} ${subformat}`.padEnd(24)}${ms(first)} ${ms(again)}`)
    }
  }
} finally {
  await service.stop()
  await rm(folder, { recursive: true, force: true })
}

function firstByteMs(url: string, token: string): Promise<number> {
  const began = performance.now()
  return new Promise((done, fail) => {
    const asked = request(url, { headers: { 'x-auth-token': token } }, (response) => {
      if (response.statusCode !== 200) return fail(new Error(`${url}: ${response.statusCode}`))
      response.once('data', () => {
        done(performance.now() - began)
        response.destroy()
      })
    })
    asked.on('error', fail)
    asked.end()
  })
}

async function madeDisk(): Promise<string> {
  const path = join(folder, 'disk.raw')
  const pieces = Array.from({ length: 96 }, (_, index) => ({
    offset: index * 20 * MiB + index * 4096,
    bytes: patterned(8 * MiB, index % 4, index % 2 ? 'text' : 'random'),
  }))
  await writeSource(memorySource(2048 * MiB, pieces), path)
  return path
}
