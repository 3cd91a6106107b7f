import type { Caller } from '../base/caller.ts'
import type { ImageQuery, ImageRecord } from '../store/catalog/catalog.ts'
import { authorizeService } from './policy.ts'
import type { ImagePorts } from './ports.ts'

export type ListRequest = Omit<ImageQuery, 'viewer'> & {
  /** A condition that no index answers: the list is then read on until the page is full. */
  readonly where?: (image: ImageRecord) => boolean
}
export interface ImagePage {
  readonly images: readonly ImageRecord[]
  /** The list goes on after this id; absent: it ends here. */
  readonly next?: string
}

const SCAN_PAGE = 500
const MAX_SCANNED = 10_000 // of one request with `where`; a page may then come out short, and `next` goes on

/** `GET /v2/images`. @throws ServiceError `denied`; `invalid-request` for a marker that the caller cannot see */
export async function listImages(
  { catalog, protections }: Pick<ImagePorts, 'catalog' | 'protections'>,
  caller: Caller,
  request: ListRequest,
): Promise<ImagePage> {
  authorizeService(caller, 'list')
  const { where, ...conditions } = request
  const { projectId } = caller
  const asked = Object.keys(request.properties ?? {})
  if (asked.some((name) => !protections.check(caller, name, 'read'))) return { images: [] } // a filter must not tell what may not be read
  const query: ImageQuery = { ...conditions, viewer: caller.isAdmin ? { all: true, projectId } : { projectId } }
  if (query.limit === 0) return emptyPage(catalog.images, query)
  if (where) return scan(catalog.images, query, where)
  const images = await catalog.images.list(query)
  return pageOf(images, images.length === query.limit ? images.at(-1) : undefined)
}

/** A page of nothing, whose marker is checked all the same. */
async function emptyPage(images: ImagePorts['catalog']['images'], query: ImageQuery): Promise<ImagePage> {
  if (query.marker !== undefined) await images.list({ ...query, limit: 1 })
  return { images: [] }
}

async function scan(
  images: ImagePorts['catalog']['images'],
  query: ImageQuery,
  where: (image: ImageRecord) => boolean,
): Promise<ImagePage> {
  const found: ImageRecord[] = []
  let marker = query.marker
  for (let scanned = 0; scanned < MAX_SCANNED; scanned += SCAN_PAGE) {
    const page = await images.list({ ...query, limit: SCAN_PAGE, ...(marker === undefined ? {} : { marker }) })
    for (const image of page) {
      if (where(image)) found.push(image)
      if (found.length === query.limit) return pageOf(found, image)
    }
    if (page.length < SCAN_PAGE) return pageOf(found, undefined)
    marker = page.at(-1)?.id
  }
  return { images: found, ...(marker === undefined ? {} : { next: marker }) }
}

const pageOf = (images: readonly ImageRecord[], last: ImageRecord | undefined): ImagePage => ({
  images,
  ...(last ? { next: last.id } : {}),
})
