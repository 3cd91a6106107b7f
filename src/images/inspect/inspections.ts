import { promisify } from 'node:util'
import { zstdCompress, zstdDecompress } from 'node:zlib'
import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { MiB } from '../../base/units.ts'
import { openableFormats } from '../../disk/formats/index.ts'
import type { Anatomy } from '../../disk/guest/anatomy.ts'
import type { Package } from '../../disk/guest/software/package.ts'
import type { Catalog, ImageRecord, StoredDocument } from '../../store/catalog/catalog.ts'
import { findImage } from '../find-image.ts'
import type { ImagePorts } from '../ports.ts'
import { recordedManifests } from '../recorded-manifests.ts'

/**
 * What an image holds, by its content: the same bytes of the same project are looked into once. Of another project's the answer would tell, by
 * how soon it comes, that somebody has them.
 */
interface Stored {
  readonly manifest: string
  /** Of the readers: what an older one found is found again. */
  readonly edition: number
  /** The anatomy as JSON, zstd, base64. */
  readonly anatomy: string
  /** Milliseconds since 1970. */
  readonly inspectedAt: number
}

export interface Inspection {
  readonly anatomy: Anatomy
  /** Milliseconds since 1970. */
  readonly inspectedAt: number
}

const KIND = 'inspection'
const EDITION = 1
/** As JSON. The package list of a machine with everything has 2 MiB. */
const MAX_ANATOMY_BYTES = 64 * MiB
const PAGE = 500
const pack = promisify(zstdCompress)
const unpack = promisify(zstdDecompress)

type Ports = Pick<ImagePorts, 'catalog' | 'chunks' | 'inspect' | 'readers' | 'now'>
const keyOf = (manifest: string, owner: string | null): string => `${manifest} ${owner ?? ''}`
/** Inspections under way, by their keys: who asks meanwhile waits for the same one. */
const underWay = new WeakMap<Catalog, Map<string, Promise<Inspection>>>()

/**
 * What the disk of an image holds. It is looked into when it is asked for the first time, which takes a second or two.
 * @throws ServiceError `not-found`, `denied`; `conflict` while it has no bytes; `unsupported` where there is no disk that can be opened;
 *   `invalid-image` where looking into it costs more than it may
 */
export async function inspectImage(ports: Ports, caller: Caller, imageId: string): Promise<Inspection> {
  const { image } = await findImage(ports.catalog, caller, imageId, 'download')
  const { manifest, owner } = image
  if (image.status !== 'active' || manifest === null) {
    throw new ServiceError('conflict', `image ${image.id} is ${image.status}: it can be looked into when it is active`, {
      imageId: image.id,
    })
  }
  const key = keyOf(manifest, owner)
  const known = await ports.catalog.documents.get<Stored>(KIND, key)
  if (known?.body.edition === EDITION) return { anatomy: await anatomyOf(known.body), inspectedAt: known.body.inspectedAt }
  const all = underWay.get(ports.catalog) ?? new Map<string, Promise<Inspection>>()
  underWay.set(ports.catalog, all)
  const running = all.get(key) ?? inspect(ports, image, manifest, key).finally(() => all.delete(key))
  all.set(key, running)
  return running
}

export interface PackagePage {
  /** `volume`: that the root of their system is on. */
  readonly packages: readonly (Package & { readonly volume: string })[]
  readonly total: number
  /** `after` of the next page; null: this was the last. */
  readonly next: number | null
  /** Whether there is a system, and every database of it could be read: only then is what is not listed not there. */
  readonly complete: boolean
}

/** What is installed in an image, system by system. @throws ServiceError as `inspectImage` */
export async function listPackages(
  ports: Ports,
  caller: Caller,
  imageId: string,
  { after, limit }: { readonly after: number; readonly limit: number },
): Promise<PackagePage> {
  const { systems } = (await inspectImage(ports, caller, imageId)).anatomy
  const all = systems.flatMap(({ volume, software }) => (software?.packages ?? []).map((each) => ({ ...each, volume })))
  const complete = systems.length > 0 && systems.every(({ software }) => software !== null && software.failures.length === 0)
  return {
    packages: all.slice(after, after + limit),
    total: all.length,
    next: after + limit < all.length ? after + limit : null,
    complete,
  }
}

async function inspect(ports: Ports, image: ImageRecord, manifest: string, key: string): Promise<Inspection> {
  const { id, diskFormat, containerFormat } = image
  if (diskFormat === null || !openableFormats.includes(diskFormat) || containerFormat !== 'bare') {
    throw new ServiceError(
      'unsupported',
      `image ${id} is ${containerFormat}/${diskFormat}: there is no disk in it that can be opened`,
      { imageId: id },
    )
  }
  const release = ports.readers.hold(manifest)
  try {
    const anatomy = await ports.inspect(await ports.chunks.open(manifest), diskFormat)
    const json = Buffer.from(JSON.stringify(anatomy))
    if (json.length > MAX_ANATOMY_BYTES) {
      throw new ServiceError(
        'too-large',
        `what image ${id} holds takes ${json.length} bytes to tell, more than ${MAX_ANATOMY_BYTES}`,
        { imageId: id },
      )
    }
    const body: Stored = { manifest, edition: EDITION, anatomy: (await pack(json)).toString('base64'), inspectedAt: ports.now() }
    await ports.catalog.write(({ documents }) => documents.put(KIND, key, body))
    return { anatomy, inspectedAt: body.inspectedAt }
  } finally {
    release()
  }
}

const anatomyOf = async ({ anatomy }: Stored): Promise<Anatomy> =>
  JSON.parse((await unpack(Buffer.from(anatomy, 'base64'), { maxOutputLength: MAX_ANATOMY_BYTES })).toString('utf8'))

/** Ends inspections whose manifest no image names any more; before a collection. @returns how many */
export async function sweepInspections(catalog: Catalog): Promise<number> {
  const gone = new Map<string, Set<string>>() // keys by manifest
  for (let after: string | undefined; ; ) {
    const page: readonly StoredDocument<Stored>[] = await catalog.documents.list<Stored>(KIND, {
      ...(after === undefined ? {} : { after }),
      limit: PAGE,
    })
    for (const { key, body } of page) gone.set(body.manifest, (gone.get(body.manifest) ?? new Set()).add(key))
    after = page.at(-1)?.key
    if (page.length < PAGE) break
  }
  if (gone.size === 0) return 0
  for await (const { manifest } of recordedManifests(catalog)) gone.delete(manifest)
  const keys = [...gone.values()].flatMap((each) => [...each])
  for (const key of keys) await catalog.write(({ documents }) => documents.delete(KIND, key))
  return keys.length
}
