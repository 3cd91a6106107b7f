import { createHash } from 'node:crypto'
import { ServiceError } from '../../base/errors.ts'
import { unpacked } from '../../disk/containers/index.ts'
import type { ImageRecord } from '../../store/catalog/catalog.ts'
import type { Lease, StreamDigest } from '../../store/chunks/chunk-store.ts'
import type { ImagePorts } from '../ports.ts'
import { ownerOfChunks } from '../transfer.ts'
import { type HeldImport, reserving } from './held-image.ts'
import type { ExpectedDigest } from './import-request.ts'

/** The file that an import starts from, in the chunk store. */
export interface SourceFile {
  readonly manifest: string
  readonly fileBytes: number
  readonly digests: Readonly<Partial<Record<StreamDigest, string>>>
  /** Where it came from and what it was: for the notes of the image. */
  readonly notes: ImageRecord['notes']
  /** Holds the manifest; a staged one is held by the record. */
  readonly lease?: Lease
}
interface Following {
  readonly signal: AbortSignal
  readonly onProgress: (bytes: number) => void
}

/** What `stage` laid by. @throws ServiceError `conflict`, `invalid-image` for another digest than the publisher's */
export async function stagedFile(
  ports: ImagePorts,
  { image }: HeldImport,
  expected: ExpectedDigest | undefined,
  { signal }: Following,
): Promise<SourceFile> {
  const { stagedManifest: manifest, notes, id } = image
  if (manifest === null) throw new ServiceError('conflict', `image ${id} has no staged bytes: stage them first`, { imageId: id })
  const text = (name: string) => (typeof notes[name] === 'string' ? notes[name] : undefined)
  const [md5, sha512] = [text('stagedMd5'), text('stagedSha512')]
  const known: Partial<Record<StreamDigest, string>> = { ...(md5 ? { md5 } : {}), ...(sha512 ? { sha512 } : {}) }
  const wanted = [...new Set<StreamDigest>(['md5', 'sha512', ...(expected ? [expected.algorithm] : [])])]
  const lacking = wanted.filter((name) => known[name] === undefined)
  const digests = lacking.length > 0 ? { ...known, ...(await ports.chunks.digest(manifest, lacking, { signal })) } : known
  assertDigest(expected, [expected && digests[expected.algorithm]])
  const { fileBytes } = await ports.chunks.sizes(manifest)
  return { manifest, fileBytes, digests, notes: origin('glance-direct', fileBytes, digests, expected) }
}

/**
 * Fetches a file and lays it by as it arrives, unpacked where it is compressed.
 * @throws ServiceError errors of the source; `invalid-image` for another digest than the publisher's, for bombs and damage;
 *   `too-large`, `over-quota`
 */
export async function downloadedFile(
  ports: ImagePorts,
  held: HeldImport,
  uri: string,
  expected: ExpectedDigest | undefined,
  { signal, onProgress }: Following,
): Promise<SourceFile> {
  const { image } = held
  const maxBytes = ports.settings.maxImageBytes
  const packed = createHash(expected?.algorithm ?? 'sha512')
  let packedBytes = 0
  const body = ports.source.fetch(uri, { maxBytes, signal })
  const keepPacked = image.containerFormat === 'compressed' || image.containerFormat === 'docker'
  const { compression, bytes } = keepPacked
    ? { compression: 'none' as const, bytes: body }
    : await unpacked(body, {
        maxBytes,
        onPacked(part) {
          packed.update(part)
          packedBytes += part.length
        },
      })
  const ingested = await ports.chunks.ingest(reserving(ports, held, bytes), {
    owner: ownerOfChunks(image),
    digests: [...new Set<StreamDigest>(['md5', 'sha512', ...(expected ? [expected.algorithm] : [])])],
    maxBytes,
    signal,
    onProgress,
  })
  const isPacked = compression !== 'none'
  const ofPacked = isPacked ? packed.digest('hex') : undefined
  try {
    assertDigest(expected, [ofPacked, expected && ingested.digests[expected.algorithm]])
  } catch (error) {
    await ingested.lease.abandon()
    throw error
  }
  const { manifest, fileBytes, digests, lease } = ingested
  const original = isPacked ? { [expected?.algorithm ?? 'sha512']: ofPacked } : digests
  const notes = {
    ...origin('web-download', isPacked ? packedBytes : fileBytes, original, expected),
    originUri: withoutSecrets(uri),
    ...(isPacked ? { originCompression: compression } : {}),
  }
  return { manifest, fileBytes, digests, notes, lease }
}

function origin(
  method: string,
  bytes: number,
  digests: Readonly<Partial<Record<StreamDigest, string | undefined>>>,
  expected: ExpectedDigest | undefined,
): Record<string, string | number | boolean> {
  const { md5, sha256, sha512 } = digests
  return {
    originMethod: method,
    originSize: bytes,
    ...(md5 ? { originMd5: md5 } : {}),
    ...(sha256 ? { originSha256: sha256 } : {}),
    ...(sha512 ? { originSha512: sha512 } : {}),
    ...(expected ? { originVerified: expected.algorithm } : {}),
  }
}

/** A query may hold the signature that lets one download. */
function withoutSecrets(uri: string): string {
  const url = new URL(uri)
  return `${url.protocol}//${url.host}${url.pathname}`
}

function assertDigest(expected: ExpectedDigest | undefined, found: readonly (string | undefined)[]): void {
  if (!expected || found.includes(expected.value)) return
  const is = found.find((digest) => digest !== undefined) ?? 'unknown'
  throw new ServiceError(
    'invalid-image',
    `the ${expected.algorithm} of the file is ${is}, not ${expected.value} as its publisher says: it is damaged, or another file`,
    { algorithm: expected.algorithm },
  )
}
