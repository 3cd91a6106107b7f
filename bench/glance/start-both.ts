import { startImprint } from '../../test/e2e/image-service.ts'
import { type Peer, scratchFolder, together } from '../../test/peers/daemon.ts'
import { startDebianCloud } from '../../test/peers/debian-cloud.ts'
import { assembleCast } from '../../test/peers/identity-client.ts'
import type { Bench, Sizes } from './bench-case.ts'

/** Debian's Glance and Imprint, each on its own, and a folder for files. Tests may give a cloud that runs already. */
export async function startBoth(sizes: Sizes): Promise<Bench & Peer> {
  const scratch = await scratchFolder('bench')
  const parts: Peer[] = [scratch]
  try {
    const cloud = await startDebianCloud()
    parts.push(cloud)
    const imprint = await startImprint({ settings: { IMPRINT_QUOTA_IMAGES: '-1' } })
    parts.push(imprint)
    const glance = { ...cloud, cast: await assembleCast(cloud.keystone.url) }
    return together('bench', parts, { sizes, folder: scratch.path, imprint, glance })
  } catch (error) {
    await together('bench', parts, {}).stop()
    throw error
  }
}
