import type { CatalogReader, CatalogWriter, StoredDocument } from '../../store/catalog/catalog.ts'

/**
 * What belongs to an image beside the disk that it is: further disks, memory, the machine itself. Only the service makes parts. Their
 * bytes are held as the image's own are (recorded-manifests.ts), and go with it.
 */
export interface ImagePart {
  /** Letters, digits and `-`; distinct within the image. */
  readonly name: string
  /** `disk`: raw; `memory`: what a hypervisor resumes from; `machine`: JSON. */
  readonly kind: 'disk' | 'memory' | 'machine'
  readonly bytes: number
}

export interface StoredPart extends ImagePart {
  readonly imageId: string
  readonly manifest: string
}

/** Of one image: bounds what deleting it does in one transaction. */
export const MAX_PARTS = 64
export const isPartName = (name: string): boolean => /^[A-Za-z0-9-]{1,40}$/.test(name)

const PART_KIND = 'image-part'
const PAGE = 500
const keyOf = (imageId: string, name: string): string => `${imageId} ${name}`

/** Ascending by name. */
export async function partsOf({ documents }: CatalogReader, imageId: string): Promise<readonly StoredPart[]> {
  const found = await documents.list<StoredPart>(PART_KIND, { index: { name: 'image', value: imageId }, limit: MAX_PARTS })
  return found.map(({ body }) => body)
}

export async function getPart({ documents }: CatalogReader, imageId: string, name: string): Promise<StoredPart | undefined> {
  return (await documents.get<StoredPart>(PART_KIND, keyOf(imageId, name)))?.body
}

export async function putPart({ documents }: CatalogWriter, part: StoredPart): Promise<void> {
  await documents.put(PART_KIND, keyOf(part.imageId, part.name), part, { indexes: { image: part.imageId } })
}

export async function deleteParts({ documents }: CatalogWriter, imageId: string): Promise<void> {
  await documents.deleteWhere(PART_KIND, { name: 'image', value: imageId })
}

export async function* allParts({ documents }: Pick<CatalogReader, 'documents'>): AsyncGenerator<StoredPart> {
  for (let after: string | undefined; ; ) {
    const page: readonly StoredDocument<StoredPart>[] = await documents.list<StoredPart>(PART_KIND, {
      ...(after === undefined ? {} : { after }),
      limit: PAGE,
    })
    for (const { body } of page) yield body
    after = page.at(-1)?.key
    if (after === undefined || page.length < PAGE) return
  }
}
