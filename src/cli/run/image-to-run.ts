import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { isServiceError, ServiceError } from '../../base/errors.ts'
import { lockFolder } from '../../base/folder-lock.ts'
import type { Image, ImageClient } from '../client/image-client.ts'
import type { ImprintClient } from '../client/imprint-client.ts'
import { spoolLimit } from '../disk-file/open-file.ts'
import { addFile } from '../image-add/add-file.ts'
import type { TransferState } from '../progress.ts'
import { fetchVendorImage } from './fetch-vendor-image.ts'
import { distroOf, type VendorImage, vendorImageFor } from './vendor-images.ts'

export interface ImageToRunOptions {
  readonly images: ImageClient
  readonly imprint: ImprintClient
  readonly cacheFolder: string
  readonly mirror: string | undefined
  /** Whose upload it is: service, user and project. */
  readonly who: readonly (string | null)[]
  /** Whether a vendor's image that is not here may be brought; asked where there is one. */
  readonly mayFetch: (vendor: VendorImage) => Promise<boolean>
  readonly signal: AbortSignal
  readonly onProgress: (state: TransferState) => void
}

/**
 * What `imprint run NAME` starts from: the image of that id or name, the newest of several; else the newest of the distribution that
 * the name says; else the one that its vendor publishes, which is brought.
 * @throws ServiceError `not-found` saying what else may be done
 */
export async function imageToRun(name: string, options: ImageToRunOptions): Promise<Image> {
  const here = (await byName(options.images, name)) ?? (await byDistro(options.images, name))
  if (here) return here
  const vendor = vendorImageFor(name)
  if (!vendor) {
    throw new ServiceError('not-found', `there is no image "${name}" that you can see; imprint image list shows them`)
  }
  if (await options.mayFetch(vendor)) return bring(vendor, options)
  const message = `there is no image "${name}"; imprint run ${name} --pull brings ${vendor.title} from ${new URL(vendor.folder).host}`
  throw new ServiceError('not-found', message)
}

async function byName(images: ImageClient, name: string): Promise<Image | undefined> {
  try {
    return await images.find(name)
  } catch (error) {
    if (isServiceError(error, 'not-found')) return undefined
    if (!isServiceError(error, 'conflict') || name.includes(':')) throw error
    return newest(images, [['name', name]])
  }
}

async function byDistro(images: ImageClient, name: string): Promise<Image | undefined> {
  const wanted = distroOf(name)
  if (!wanted) return undefined
  const version = wanted.version === null ? [] : [['os_version', wanted.version] as const]
  return newest(images, [['os_distro', wanted.distro], ...version], isOriginal)
}

/** A snapshot inherits what system it holds, and is not what somebody means who asks for that system. */
const isOriginal = ({ properties }: Image): boolean => properties.image_type === undefined

async function newest(
  images: ImageClient,
  filters: readonly (readonly [string, string])[],
  accepts: (image: Image) => boolean = () => true,
): Promise<Image | undefined> {
  const asked = [...filters, ['status', 'active'], ['sort', 'created_at:desc']] as const
  for await (const image of images.list(asked)) if (accepts(image)) return image
  return undefined
}

/** One at a time on this machine: a second one would download into the same file. */
async function bring(vendor: VendorImage, options: ImageToRunOptions): Promise<Image> {
  const folder = join(options.cacheFolder, 'vendor-images')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const unlock = lock(join(folder, 'lock'))
  try {
    return await add(vendor, folder, options)
  } finally {
    unlock()
  }
}

function lock(path: string): () => void {
  try {
    return lockFolder(path)
  } catch (cause) {
    if (!isServiceError(cause, 'conflict')) throw cause
    const message = 'another imprint run brings an image just now; wait for it, then give the same command again'
    throw new ServiceError('conflict', message, {}, { cause })
  }
}

async function add(vendor: VendorImage, folder: string, options: ImageToRunOptions): Promise<Image> {
  const { cacheFolder, imprint, mirror, onProgress, signal, who } = options
  const path = await fetchVendorImage(vendor, { mirror, cacheFolder: folder, signal, onProgress })
  const { distro, version, user, hasAgent } = vendor
  const properties = {
    os_type: 'linux',
    os_distro: distro,
    os_version: version,
    os_admin_user: user,
    hw_architecture: 'x86_64',
    hw_qemu_guest_agent: hasAgent ? 'yes' : 'no',
  }
  const name = `${distro}-${version}`
  const { image } = await addFile({
    path,
    imprint,
    cacheFolder,
    who,
    fields: { name, properties },
    asFile: false,
    member: undefined,
    spoolBytes: spoolLimit(undefined),
    published: undefined, // it was held against the vendor's checksum just now
    restart: false,
    signal,
    onProgress,
  })
  await rm(path)
  return image
}
