import { createHash } from 'node:crypto'
import { refuseOvf } from './xml.ts'

export type ManifestAlgorithm = 'sha1' | 'sha256' | 'sha512'
/** Name of a file → its digest. */
export type Manifest = ReadonlyMap<string, { readonly algorithm: ManifestAlgorithm; readonly digest: string }>

export const MAX_MANIFEST_BYTES = 1024 * 1024
const digestChars: Readonly<Record<ManifestAlgorithm, number>> = { sha1: 40, sha256: 64, sha512: 128 }

/**
 * Lines of the form `SHA256(disk.vmdk)= 0123…`. Source: DSP0243 2.1.1, section "OVF package"; spaces as other writers have them are taken.
 * @throws ServiceError `invalid-image`
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  const entries = new Map<string, { algorithm: ManifestAlgorithm; digest: string }>()
  for (const [index, line] of Buffer.from(bytes).toString('utf8').split('\n').entries()) {
    if (line.trim() === '') continue
    const bad = (problem: string) => refuseOvf('malformed', `line ${index + 1} of the manifest ${problem}`, { line: index + 1 })
    const [, kind, name, digest] = /^(SHA1|SHA256|SHA512) ?\(([^\r]{1,1024})\) ?= ?([0-9a-f]+)[ \t]*\r?$/i.exec(line) ?? []
    if (kind === undefined || name === undefined || digest === undefined)
      throw bad('is not "SHA256(name)= digest"; SHA1, SHA256 and SHA512 are known')
    const algorithm = kind.toLowerCase() as ManifestAlgorithm
    if (digest.length !== digestChars[algorithm]) throw bad(`has a digest of ${digest.length} digits`)
    if (entries.has(name)) throw bad('names a file for the second time')
    entries.set(name, { algorithm, digest: digest.toLowerCase() })
  }
  return entries
}

/** @throws ServiceError `invalid-image` where the bytes have another digest */
export async function verifyDigest(name: string, manifest: Manifest, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  const entry = manifest.get(name)
  if (!entry) throw refuseOvf('wrong-digest', `the manifest does not name ${JSON.stringify(name)}`)
  const hash = createHash(entry.algorithm)
  for await (const piece of bytes) hash.update(piece)
  const digest = hash.digest('hex')
  if (digest === entry.digest) return
  const problem = `the ${entry.algorithm} of ${JSON.stringify(name)} is ${digest}, not ${entry.digest} as the manifest says: it is damaged, or another file`
  throw refuseOvf('wrong-digest', problem)
}
